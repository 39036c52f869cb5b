//! What is said of a model: as text, and for serde.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::models::estimate::{FitReport, MemoryLimit};
use crate::models::human_size;
use crate::models::list::printable;
use crate::preflight::FoundMemory;

/// A report, with what it was made for.
#[derive(Debug, Clone, PartialEq)]
pub struct FitAnswer {
    /// The numbers.
    pub report: FitReport,
    pub(super) memory: FoundMemory,
    /// Tokens of context of each slot.
    pub(super) ctx: u64,
    pub(super) slots: u64,
    /// The context that the model was trained for.
    pub(super) trained: Option<u64>,
}

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FitVerdict {
    /// All of it fits, as it was asked for.
    Fits,
    /// It runs with a shorter context, with fewer layers on the GPU, or on the CPU.
    Partly,
    /// It does not run.
    No,
}

impl FitAnswer {
    /// Returns the answer in one word.
    #[must_use]
    pub fn verdict(&self) -> FitVerdict {
        match (self.report.fits, self.ways().is_empty()) {
            (true, _) => FitVerdict::Fits,
            (false, false) => FitVerdict::Partly,
            (false, true) => FitVerdict::No,
        }
    }

    /// Returns the answer as text of several lines.
    #[must_use]
    pub fn described(&self, name: &str) -> String {
        let FitReport { estimate, projector, layers, .. } = &self.report;
        let trained = self.trained.map(|tokens| format!(", trained for {tokens} tokens")).unwrap_or_default();
        let mut text = format!("{} ({layers} layers{trained})\n", printable(name));
        let rows = [
            ("weights", estimate.weights, String::new()),
            ("KV cache", estimate.cache, format!("  CTX={} PARALLEL={}", self.ctx, self.slots)),
            ("computing", estimate.compute.saturating_add(estimate.output), String::new()),
            ("projector", *projector, String::new()),
            ("sum", estimate.total().saturating_add(*projector), String::new()),
        ];
        for (what, bytes, of) in rows.iter().filter(|(what, bytes, _)| *what != "projector" || *bytes > 0) {
            let _ = writeln!(text, "  {what:<10}{:>11}{of}", human_size(*bytes));
        }
        let _ = writeln!(text, "{}", self.comparison());
        if self.report.fits {
            return text + if self.report.ngl.is_some() { "fits, with all layers on the GPU\n" } else { "fits\n" };
        }
        match self.ways().as_slice() {
            [] => text + "does not fit, and would not with CTX=512 on the CPU\n",
            ways => text + "does not fit as it was asked for; what does:\n  " + &ways.join("\n  ") + "\n",
        }
    }

    /// Returns the answer as JSON.
    #[must_use]
    pub fn as_json(&self, name: &str) -> Value {
        let mut value = json!(self.report);
        value["name"] = json!(name);
        value["sum"] = json!(self.report.estimate.total().saturating_add(self.report.projector));
        value["memory_source"] = json!(self.memory.source);
        value["asked"] = json!({"ctx": self.ctx, "parallel": self.slots});
        value["verdict"] = json!(self.verdict());
        value["reason"] = json!(self.comparison());
        value["ways"] = json!(if self.report.fits { Vec::new() } else { self.ways() });
        value
    }

    /// Returns what is needed of the memory that there is, as a sentence.
    fn comparison(&self) -> String {
        let where_to = if matches!(self.memory.limit, MemoryLimit::Gpu { .. }) { "on the GPU" } else { "on the host" };
        let (needed, memory) = (human_size(self.report.needed), human_size(self.report.memory));
        format!("{needed} {where_to}, of {memory} ({})", self.memory.source)
    }

    /// Returns in which ways it runs if not all of it fits.
    fn ways(&self) -> Vec<String> {
        let FitReport { layers, ngl, ctx, fits_host, .. } = &self.report;
        let shorter = ctx.map(|ctx| format!("CTX={ctx} fits{}", if ngl.is_some() { " with all layers" } else { "" }));
        let fewer = ngl.filter(|count| *count > 0);
        let fewer = fewer.map(|count| format!("NGL={count} of {layers} layers fit with CTX={}", self.ctx));
        let host = fits_host.filter(|fits| *fits && ngl.is_some()).map(|_| "NGL=0 runs on the CPU".to_owned());
        [shorter, fewer, host].into_iter().flatten().collect()
    }
}
