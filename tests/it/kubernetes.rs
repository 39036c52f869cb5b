//! The Helm chart in `deploy/helm`: its objects fit the schemas of Kubernetes, and what they promise about the program is true:
//! the settings, the probes, the time to stop, the Secret with the keys, the start of workers for requests that wait.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use llamagate::settings::OPTIONS;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::configuration::llamagate;
use super::support::{
    deploy::{Rendered, deploy, environment, render_chart},
    gateway::{Gateway, real_llama_server, test_models},
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const WORKER_KEY: &str = "worker-key-of-a-test-0123456789";

/// A secret that a test puts into the place of another.
const NEW_SECRET: &str = "new-secret-of-a-test-0123456789";

/// Values without anything special.
const PLAIN: &str = "image: {repository: r}\nauth: {keys: \"a:0123456789abcdef\"}\nmodel: {name: m.gguf}\n";

/// Renders the three examples of the chart; `None` without the tools.
fn examples() -> Option<Vec<Rendered>> {
    let names = ["gpu-node", "router", "scale-from-zero"];
    let read = |name| fs::read_to_string(deploy(&format!("helm/llamagate/examples/{name}.yaml"))).unwrap();
    render_chart(&names.map(read))
}

#[track_caller]
fn render(values: &str) -> Option<Rendered> {
    render_chart(&[values.to_owned()])?.pop()
}

/// Returns values with a router in front of the workers, which show it this key, and more values.
fn routed(key: &str, more: &str) -> String {
    format!(
        "image: {{repository: r}}\nauth: {{existingSecret: s, workerKey: {key}}}\n\
         model: {{name: m.gguf, served: [{{name: m}}]}}\n{more}"
    )
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}]})
}

#[test]
fn every_variable_of_a_pod_is_a_setting() {
    let Some(examples) = examples() else { return };
    let mut found = 0;
    for pod in examples.iter().flat_map(Rendered::pods) {
        for (name, _) in environment(pod, "secret") {
            // The router's own, which its configuration names.
            let is_setting =
                name == "WORKER_KEY" || OPTIONS.iter().any(|option| option.key.to_ascii_uppercase() == name);
            assert!(is_setting, "{name} is no setting");
            found += 1;
        }
    }
    assert!(found > 30, "the variables were found");
}

/// Regression: the notes said http where the pods speak TLS.
#[test]
fn the_notes_name_the_scheme_of_the_port() {
    let tls = "env: {TLS_CERT: /tls/tls.crt, TLS_KEY: /tls/tls.key, TLS_CLIENT_CA: /tls/ca.crt}";
    let values = [
        PLAIN.to_owned(),
        format!("{PLAIN}worker: {{{tls}}}\n"),
        format!("{PLAIN}worker: {{env: {{TLS_SELF_SIGNED: true}}}}\n"),
        format!("{PLAIN}worker: {{env: {{TLS_SELF_SIGNED: \"Yes\"}}}}\n"),
        format!("{PLAIN}worker: {{env: {{TLS_SELF_SIGNED: 1}}}}\n"),
        format!("{PLAIN}worker: {{env: {{TLS_SELF_SIGNED: \"off\"}}}}\n"),
        format!("{PLAIN}worker: {{env: {{TLS_ACME_DOMAINS: llm.example.org, TLS_ACME_ACCEPT_TERMS: true}}}}\n"),
        routed(WORKER_KEY, &format!("router: {{enabled: true, {tls}}}\n")),
        routed(WORKER_KEY, "router: {enabled: true}\n"),
    ];
    let Some(rendered) = render_chart(&values) else { return };
    let lines = [
        "curl http://",
        "curl --insecure --cert CLIENT.pem --key CLIENT.key https://",
        "curl --insecure https://",
        "curl --insecure https://",
        "curl --insecure https://",
        "curl http://",
        "curl --insecure https://",
        "curl --insecure --cert CLIENT.pem --key CLIENT.key https://",
        "curl http://",
    ];
    for (rendered, line) in rendered.iter().zip(lines) {
        let notes = rendered.notes();
        assert!(notes.contains(&format!("{line}localhost:8000/v1/models")), "{notes}");
        assert_eq!(notes.matches("://localhost").count(), 1, "{notes}");
    }
}

/// Every pod starts with what its object says: `llamagate check` accepts its variables and its configuration.
#[test]
fn the_program_accepts_the_configuration_of_each_pod() {
    let Some(examples) = examples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (config, models) = (folder.path().join("llamagate.yaml"), folder.path().join("models"));
    fs::create_dir(&models).unwrap();
    for (name, model) in [("Qwen3-14B-Q4_K_M.gguf", "tiny-chat.gguf"), ("bge-m3-Q8_0.gguf", "tiny-embedding.gguf")] {
        fs::copy(test_models().join(model), models.join(name)).unwrap();
    }
    let keys = folder.path().join("api_keys.txt");
    fs::write(&keys, "a:0123456789abcdef\n").unwrap();
    let server = real_llama_server();
    for example in &examples {
        let pods = example.all("StatefulSet").into_iter().chain(example.all("Deployment"));
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let mut variables = environment(&pod["spec"]["template"]["spec"], WORKER_KEY);
            for (variable, value) in &mut variables {
                match variable.as_str() {
                    "DATA_DIR" => *value = folder.path().display().to_string(),
                    "AUTH_KEYS_FILE" => *value = keys.display().to_string(),
                    "MODELS_DIR" => *value = models.display().to_string(),
                    // The hub is not asked here.
                    "MODEL_NAME" if value.contains('/') => *value = "Qwen3-14B-Q4_K_M.gguf".to_owned(),
                    "CONFIG_FILE" => {
                        let text = example.one("ConfigMap", name)["data"]["llamagate.yaml"].as_str().unwrap();
                        fs::write(&config, text).unwrap();
                        *value = config.display().to_string();
                    }
                    _ => {}
                }
            }
            variables.push(("LLAMA_SERVER".to_owned(), server.display().to_string()));
            let variables: Vec<(&str, &str)> =
                variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let output = llamagate(&["check"], &variables);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
            assert!(!errors.contains("left out"), "{name}: {errors}");
        }
    }
}

/// Regression: Helm wrote large numbers as 2.097152e+07, which is no size.
#[test]
fn numbers_of_settings_are_written_in_full() {
    let env =
        "worker: {env: {MAX_REQUEST_BODY_SIZE: 20971520, PRICE_PER_HOUR: 0.44, CTX: \"8192\", UI_ENABLED: false}}\n";
    let Some(rendered) = render(&format!("{PLAIN}{env}")) else { return };
    let variables = environment(rendered.pods()[0], "");
    let value = |name: &str| variables.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.as_str());
    let names = ["MAX_REQUEST_BODY_SIZE", "PRICE_PER_HOUR", "CTX", "UI_ENABLED"];
    assert_eq!(names.map(value), [Some("20971520"), Some("0.44"), Some("8192"), Some("false")]);
}

/// Regression: a path with a comma became two members.
#[test]
fn a_path_of_models_is_written_as_it_is() {
    let values = format!("{PLAIN}worker: {{models: {{hostPath: \"/models, of: all\"}}}}\n");
    let Some(rendered) = render(&values) else { return };
    let pod = rendered.pods()[0];
    let volumes = pod["volumes"].as_array().unwrap();
    let models = volumes.iter().find(|volume| volume["name"] == "models").unwrap();
    assert_eq!(models["hostPath"]["path"], "/models, of: all");
}

/// Regression: with a name of 50 characters that of a Service had 64, and the label of a StatefulSet's revision more.
#[test]
fn names_of_a_long_release_are_not_too_long_for_kubernetes() {
    const LONGEST: usize = 63;
    const REVISION: usize = "-0123456789".len();
    let scaled = "router: {enabled: true}\nautoscaling: {enabled: true}\nnetworkPolicy: {enabled: false}\n";
    let values = routed(WORKER_KEY, &format!("{scaled}nameOverride: {}\n", "n".repeat(50)));
    let Some(rendered) = render(&values) else { return };
    let longest = |kind| {
        let names = rendered.all(kind).into_iter().map(|object| object["metadata"]["name"].as_str().unwrap().len());
        names.max().unwrap()
    };
    assert!(longest("Service") > 50 && longest("Service") <= LONGEST);
    assert!(longest("StatefulSet") + REVISION <= LONGEST);
}

/// Regression: at each upgrade two pods had the ledger on the claim open.
#[test]
fn a_ledger_on_a_claim_has_one_router_at_a_time() {
    let Some(rendered) = render(&routed(WORKER_KEY, "router: {enabled: true, existingClaim: ledger}\n")) else {
        return;
    };
    assert_eq!(rendered.one("Deployment", "router")["spec"]["strategy"], json!({"type": "Recreate"}));
    let refused = render(&routed(WORKER_KEY, "router: {enabled: true, existingClaim: ledger, replicas: 2}\n")).unwrap();
    assert!(refused.error().contains("set router.replicas=1"), "{}", refused.error());
}

/// Regression: after a change of the workers' key the pods went on with the old one, or refused each other.
#[test]
fn a_new_key_of_the_workers_restarts_all_pods() {
    let values = [WORKER_KEY, NEW_SECRET].map(|key| routed(key, "router: {enabled: true}\n"));
    let Some(rendered) = render_chart(&values) else { return };
    for (kind, end) in [("StatefulSet", "worker"), ("Deployment", "router")] {
        let marks = [0, 1].map(|n| &rendered[n].one(kind, end)["spec"]["template"]["metadata"]["annotations"]);
        assert!(marks[0].is_object() && marks[0] != marks[1], "{kind}: {marks:?}");
    }
}

#[test]
fn volumes_and_secret_settings_of_the_user_are_in_the_pods() {
    let extra = "extraEnvFrom: [{secretRef: {name: remote-keys}}], extraVolumes: [{name: tls, secret: {secretName: t}}], \
                 extraVolumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]";
    let more = format!("router: {{enabled: true, env: {{TLS_CERT: /tls/c, TLS_KEY: /tls/k}}, {extra}}}\n");
    let Some(rendered) = render(&routed(WORKER_KEY, &format!("{more}worker: {{{extra}}}\n"))) else { return };
    for pod in rendered.pods() {
        let container = &pod["containers"][0];
        assert_eq!(container["envFrom"], json!([{"secretRef": {"name": "remote-keys"}}]));
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.contains(&json!({"name": "tls", "mountPath": "/tls", "readOnly": true})), "{mounts:?}");
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(volumes.contains(&json!({"name": "tls", "secret": {"secretName": "t"}})), "{volumes:?}");
        // What comes out of a Secret cannot take the health port from the probes.
        assert!(environment(pod, "").contains(&("TLS_HEALTH".to_owned(), "false".to_owned())));
    }
}

#[test]
fn probes_ask_paths_that_the_health_port_has() {
    let Some(examples) = examples() else { return };
    let gateway = Gateway::builder().start_ready();
    for pod in examples.iter().flat_map(Rendered::pods) {
        let container = &pod["containers"][0];
        for probe in ["livenessProbe", "readinessProbe"] {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["port"], "health");
            assert_eq!(gateway.health().get(get["path"].as_str().unwrap()).status(), 200, "{probe}");
        }
    }
}

#[test]
fn pods_have_no_privileges_and_write_to_their_volumes_only() {
    let Some(examples) = examples() else { return };
    for pod in examples.iter().flat_map(Rendered::pods) {
        assert_eq!(
            (&pod["securityContext"]["runAsNonRoot"], &pod["automountServiceAccountToken"]),
            (&json!(true), &json!(false))
        );
        let container = &pod["containers"][0];
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        let mounts = container["volumeMounts"].as_array().unwrap();
        let writable: Vec<&Value> =
            mounts.iter().filter(|mount| mount["readOnly"] != true).map(|m| &m["mountPath"]).collect();
        assert_eq!(writable, ["/data", "/tmp"]);
        assert!(
            mounts.iter().all(|mount| mount["subPath"].is_null()),
            "a file with subPath does not follow its Secret"
        );
    }
}

/// The worst case: a stream that outlives the drain, and a llama-server that ignores SIGTERM.
#[test]
fn a_pod_has_ended_before_kubernetes_kills_it() {
    let Some(rendered) = render(&format!("{PLAIN}drain: {{preStopSeconds: 3, timeoutSeconds: 2}}\n")) else { return };
    let pod = rendered.pods()[0];
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap());
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    let before = seconds(&pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]);
    let variables = environment(pod, "");
    let (_, drain) = variables.iter().find(|(name, _)| name == "DRAIN_TIMEOUT").unwrap();

    let script = json!({"hold_mid_stream": {"after_frames": 1}, "ignore_sigterm": true});
    let mut gateway = Gateway::builder().script(script).set("DRAIN_TIMEOUT", drain).start_ready();
    let mut stream = gateway.client().stream(CHAT, &json!({"messages": [], "stream": true}));
    assert!(stream.next_event().is_some());
    let begin = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let took = begin.elapsed();
    assert!(before + took < grace, "{took:?} after {before:?}, and the pod is killed after {grace:?}");
}

/// Puts the files of a Secret into a volume as the kubelet does: into a folder of their own, to which `..data` points.
fn write_secret(volume: &Path, version: &str, keys: &str) {
    let folder = volume.join(version);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("api_keys.txt"), keys).unwrap();
    symlink(version, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

#[test]
fn the_keys_follow_their_secret() {
    let volume = tempfile::tempdir().unwrap();
    write_secret(volume.path(), "..2026_11_30_1", "old:0123456789abcdef-old:1000\n");
    symlink("..data/api_keys.txt", volume.path().join("api_keys.txt")).unwrap();
    let file = volume.path().join("api_keys.txt");
    let gateway = Gateway::builder().set("AUTH_KEYS_FILE", file.display()).start_ready();
    let status = |secret| gateway.client_with(secret).post_json(CHAT, &chat("any")).status();
    assert_eq!((status("0123456789abcdef-old"), status(NEW_SECRET)), (200, 401));
    write_secret(volume.path(), "..2026_11_30_2", &format!("new:{NEW_SECRET}:1000\n"));
    fs::remove_dir_all(volume.path().join("..2026_11_30_1")).unwrap();
    eventually("the new keys hold", READY, || status(NEW_SECRET) == 200);
    assert_eq!(status("0123456789abcdef-old"), 401);
}

/// Returns a port that no program has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The router of the chart, with no worker at first: its queue shows that one is wanted, and the request is served by it.
#[test]
fn a_request_waits_for_a_worker_that_is_started_for_it() {
    let port = free_port();
    let config = format!(
        "model_list:\n  - model_name: m\n    health: /health\n    litellm_params: {{model: openai/m, \
         api_base: \"http://127.0.0.1:{port}\", api_key: {WORKER_KEY}, max_parallel_requests: 4}}\n"
    );
    let router = Gateway::builder().fakes(&config, &[]).set("HEALTH_CHECK_INTERVAL", "1s");
    let router = router.set("WAIT_FOR_REMOTES", true).set("QUEUE_TIMEOUT", "2m").start();
    // Its readiness probe lets requests in although there is no worker.
    eventually("the backend was found to be away", SOON, || {
        router.anonymous().get("/health").json()["models"][0]["state"] == "unhealthy"
    });
    assert_eq!(router.health().get("/ping").status(), 204);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| router.client().patience(READY).post_json(CHAT, &chat("m")));
        // What KEDA reads.
        let queue = || router.health().get("/metrics").json()["gateway"]["queue_depth"].clone();
        eventually("the request waits", SOON, || queue() == 1);
        let worker = Gateway::builder().set("PORT", port).keys(&format!("router:{WORKER_KEY}:1000\n")).start();
        let answer = waiting.join().unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(worker.journal().requests(CHAT).len(), 1);
    });
}

#[test]
fn a_request_is_refused_at_once_unless_it_may_wait_for_a_worker() {
    let config = format!(
        "model_list:\n  - model_name: m\n    litellm_params: {{api_base: \"http://127.0.0.1:{}\"}}\n",
        free_port()
    );
    for (may_wait, code) in [("false", "backend_unavailable"), ("true", "model_loading")] {
        let router =
            Gateway::builder().fakes(&config, &[]).set("WAIT_FOR_REMOTES", may_wait).set("QUEUE_TIMEOUT", "1s");
        let router = router.start();
        eventually("the backend was found to be away", SOON, || {
            router.anonymous().get("/health").json()["models"][0]["state"] == "unhealthy"
        });
        let answer = router.client().post_json(CHAT, &chat("m"));
        assert_eq!(answer.json()["error"]["code"], code, "{}", answer.text());
    }
}

#[test]
fn workers_are_scaled_by_numbers_that_the_router_shows() {
    let Some(examples) = examples() else { return };
    let scaled = &examples[2].one("ScaledObject", "worker")["spec"];
    assert_eq!((&scaled["scaleTargetRef"]["kind"], &scaled["minReplicaCount"]), (&json!("StatefulSet"), &json!(0)));
    assert_eq!(scaled["scaleTargetRef"]["name"], examples[2].one("StatefulSet", "worker")["metadata"]["name"]);
    let gateway = Gateway::builder().start_ready();
    let shown = gateway.health().get("/metrics").json();
    let triggers = scaled["triggers"].as_array().unwrap();
    for trigger in triggers {
        let members = trigger["metadata"]["valueLocation"].as_str().unwrap().split('.');
        assert!(members.fold(&shown, |value, member| &value[member]).is_u64(), "{trigger}");
        let formula = scaled["advanced"]["scalingModifiers"]["formula"].as_str().unwrap();
        assert!(formula.contains(trigger["name"].as_str().unwrap()));
    }
    assert_eq!(triggers.len(), 2);
}

#[test]
fn only_the_pods_that_clients_connect_to_share_limits() {
    let with_store = "limitsStore: {existingSecret: store}\n";
    let values =
        [format!("{PLAIN}{with_store}"), routed(WORKER_KEY, &format!("router: {{enabled: true}}\n{with_store}"))];
    let Some(rendered) = render_chart(&values) else { return };
    let store_of = |rendered: &Rendered, kind: &str, component: &str| {
        let environment = &rendered.one(kind, component)["spec"]["template"]["spec"]["containers"][0]["env"];
        let find = |variable: &&Value| variable["name"] == "LIMITS_STORE";
        environment.as_array().unwrap().iter().find(find).cloned()
    };
    let secret =
        json!({"name": "LIMITS_STORE", "valueFrom": {"secretKeyRef": {"name": "store", "key": "limits-store"}}});
    assert_eq!(store_of(&rendered[0], "StatefulSet", "worker"), Some(secret.clone()));
    assert_eq!(store_of(&rendered[1], "Deployment", "router"), Some(secret));
    assert_eq!(store_of(&rendered[1], "StatefulSet", "worker"), None, "its only client is the router");
}

#[test]
fn values_that_contradict_each_other_are_refused_by_name() {
    let open = "networkPolicy: {enabled: false}\n";
    let router = "router: {enabled: true}\nmodel: {name: m.gguf, served: [{name: m}]}\nimage: {repository: r}\n";
    let enabled = "router: {enabled: true}\n";
    let wrong = [
        ("", "auth.existingSecret or auth.keys is needed"),
        ("auth: {enabled: false}\n", "image.repository is needed"),
        (&*format!("{PLAIN}worker: {{config: \"models: {{}}\"}}\n"), "model.name and worker.config"),
        (&*format!("{PLAIN}worker: {{models: {{existingClaim: a, hostPath: /b}}}}\n"), "worker.models.existingClaim"),
        (&*format!("{PLAIN}worker: {{env: {{PORT: 9}}}}\n"), "PORT is set by other values"),
        (&*format!("{PLAIN}{open}autoscaling: {{enabled: true}}\n"), "autoscaling.enabled needs router.enabled"),
        (&*format!("{PLAIN}podMonitor: {{enabled: true}}\n"), "networkPolicy.monitoring is needed"),
        (&*format!("{PLAIN}replicas: 2\n"), "replicas"),
        (&*format!("{PLAIN}drain: {{timeoutSeconds: 0}}\n"), "timeoutSeconds"),
        (&*format!("{router}auth: {{existingSecret: s}}\n"), "auth.workerKey is needed"),
        ("router: {enabled: true}\nauth: {existingSecret: s}\nimage: {repository: r}\n", "model.served is needed"),
        ("auth: {existingSecret: s, workerKey: 0123456789abcdef}\nimage: {repository: r}\n", "have no effect"),
        ("auth: {enabled: false, keys: \"a:0123456789abcdef\"}\n", "auth.keys has no effect"),
        ("auth: {enabled: false, existingSecret: s}\n", "auth.existingSecret has no effect"),
        ("auth: {enabled: false, workerKey: 0123456789abcdef}\n", "auth.workerKey has no effect"),
        ("auth: {enabled: false}\nlimitsStore: {existingSecret: s}\n", "limitsStore.existingSecret has no effect"),
        (&*format!("{PLAIN}worker: {{env: {{LIMITS_STORE: valkey://h}}}}\n"), "LIMITS_STORE is set by other values"),
        ("auth: {existingSecret: s}\nmodel: {name: m, served: [{name: m}]}\n", "model.served has no effect"),
        ("auth: {existingSecret: s}\nmodel: {name: m, served: [{name: m}, {name: n}]}\n", "model.name is one model"),
        (
            &*routed(WORKER_KEY, &format!("{enabled}worker: {{env: {{MAX_REQUESTS_PER_MINUTE: 5}}}}\n")),
            "set by other values",
        ),
        (
            &*routed(WORKER_KEY, &format!("{enabled}worker: {{env: {{TLS_CERT: /c}}}}\n")),
            "worker.env may not set TLS_CERT",
        ),
        (
            &*routed(WORKER_KEY, &format!("{enabled}worker: {{env: {{TLS_ACME_DOMAINS: llm.example.org}}}}\n")),
            "worker.env may not set TLS_ACME_DOMAINS",
        ),
        (&*routed(WORKER_KEY, "router: {enabled: true, env: {TLS_HEALTH: true}}\n"), "TLS_HEALTH may not be set"),
        (
            &*format!("{PLAIN}worker: {{extraVolumes: [{{name: data, emptyDir: {{}}}}]}}\n"),
            "data is a volume of this chart",
        ),
        (&*format!("{PLAIN}worker: {{extraVolumeMounts: [{{name: x, mountPath: /data/}}]}}\n"), "/data/ is a folder"),
        (&*format!("{PLAIN}fullnameOverride: {}\n", "n".repeat(45)), "fullnameOverride"),
    ];
    let Some(rendered) = render_chart(&wrong.map(|(values, _)| values.to_owned())) else { return };
    for ((values, error), rendered) in wrong.iter().zip(&rendered) {
        assert!(rendered.error().contains(error), "{values}: {}", rendered.error());
    }
}
