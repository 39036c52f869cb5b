//! The tools that read `deploy/`: Helm, the schemas of Kubernetes and Grafana, and a parser of PromQL, in a Python of their
//! own. Where they are not to be had, tests say so and pass.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// Returns a Python with these tools: LLAMAGATE_TEST_DEPLOY, else the one that scripts/get-deploy-tools.sh keeps in the
/// checkout; `None` if there is none.
fn python() -> Option<PathBuf> {
    let cached = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/deploy/bin/python");
    let python = std::env::var_os("LLAMAGATE_TEST_DEPLOY").map_or_else(cached, PathBuf::from);
    if !python.exists() {
        eprintln!("{} is not here: deploy/ was not checked", python.display());
        return None;
    }
    Some(python)
}

/// Returns the path of a file of `deploy/`.
pub(crate) fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Runs a script of `tests/deploy` and returns the JSON that it prints; `None` without the tools. Panics if it finds fault.
#[track_caller]
pub(crate) fn run_tool(script: &str, arguments: &[PathBuf], input: &str) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy").join(script);
    let mut command = Command::new(python()?);
    command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = command.spawn().expect("Python starts");
    tool.stdin.take().expect("it has an input").write_all(input.as_bytes()).expect("it reads its input");
    let output = tool.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("it prints JSON"))
}

/// Renders the chart with each of these values; `None` without the tools. Panics if an object does not fit its schema.
#[track_caller]
pub(crate) fn render_chart(values: &[String]) -> Option<Vec<Rendered>> {
    let input = serde_json::to_string(values).expect("texts are JSON");
    let results = run_tool("render_chart.py", &[deploy("helm/llamagate")], &input)?;
    Some(results.as_array().expect("a result for each").iter().cloned().map(Rendered).collect())
}

/// What Helm has made of one set of values.
#[derive(Debug)]
pub(crate) struct Rendered(Value);

impl Rendered {
    /// Returns why Helm refuses the values.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        self.0["error"].as_str().unwrap_or_else(|| panic!("the values were accepted: {}", self.0))
    }

    /// Returns what Helm prints after an installation.
    pub(crate) fn notes(&self) -> &str {
        self.0["notes"].as_str().unwrap_or_else(|| panic!("refused: {}", self.0))
    }

    /// Returns the objects of this kind.
    #[track_caller]
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        let objects = self.0["objects"].as_array().unwrap_or_else(|| panic!("refused: {}", self.0));
        objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// Returns the object of this kind whose name ends like this.
    #[track_caller]
    pub(crate) fn one(&self, kind: &str, end: &str) -> &Value {
        let is_it = |object: &&Value| object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(end));
        self.all(kind).into_iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {end} in {}", self.0))
    }

    /// Returns the templates of the pods: of the workers, and of the router if there is one.
    pub(crate) fn pods(&self) -> Vec<&Value> {
        let owners = self.all("StatefulSet").into_iter().chain(self.all("Deployment"));
        owners.map(|owner| &owner["spec"]["template"]["spec"]).collect()
    }
}

/// Returns the environment of the container of a pod. A value out of a Secret is `secret`.
pub(crate) fn environment(pod: &Value, secret: &str) -> Vec<(String, String)> {
    let variables = pod["containers"][0]["env"].as_array().expect("a list of variables").iter();
    let value = |variable: &Value| variable["value"].as_str().unwrap_or(secret).to_owned();
    variables.map(|variable| (variable["name"].as_str().expect("a name").to_owned(), value(variable))).collect()
}
