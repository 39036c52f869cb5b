//! Names of models in the new file: each means one model.

use std::collections::BTreeSet;

use super::acceptance::{KeyPlace, check, check_id};
use super::draft::DraftModel;
use super::section::DraftValue;
use crate::settings::bounds::MOST_ALIASES;

/// Checks the ids, and gives each model its aliases. What cannot be a name, or is one already, is left out.
pub(super) fn settle_names(models: &mut [DraftModel]) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for model in models.iter_mut() {
        let fault = match check_id(&model.id) {
            Err(fault) => Some(fault),
            Ok(()) if !taken.insert(model.id.clone()) => Some("another model has this name".to_owned()),
            Ok(()) => None,
        };
        if let Some(fault) = fault {
            *model = DraftModel::failed(&model.id, fault);
        }
    }
    for model in models.iter_mut().filter(|model| model.fault.is_none()) {
        let mut aliases: Vec<String> = Vec::new();
        for alias in std::mem::take(&mut model.aliases) {
            if alias == model.id || aliases.contains(&alias) {
                continue;
            }
            match check_alias(&alias, aliases.len(), &taken) {
                Ok(()) => aliases.push(alias),
                Err(fault) => model.keys.left_out(format!("the alias {alias}"), fault),
            }
        }
        taken.extend(aliases.iter().cloned());
        if !aliases.is_empty() {
            model.keys.set("aliases", DraftValue::Words(aliases));
        }
    }
}

fn check_alias(alias: &str, count: usize, taken: &BTreeSet<String>) -> Result<(), String> {
    check_id(alias)?;
    check(KeyPlace::File, "aliases", &DraftValue::Words(vec![alias.to_owned()]))?;
    if taken.contains(alias) {
        return Err("another model has this name".to_owned());
    }
    if count == MOST_ALIASES {
        return Err(format!("a model has {MOST_ALIASES} aliases at most"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_means_one_model_and_ids_come_first() {
        let model = |id: &str, aliases: &[&str]| DraftModel {
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..DraftModel::of(id)
        };
        let mut models =
            [model("a", &["x", "x", "b", "a", ""]), model("b", &["x", "y"]), model(" c", &[]), model("a", &[])];
        settle_names(&mut models);
        let aliases = |at: usize| models[at].keys.get("aliases").cloned();
        assert_eq!(aliases(0), Some(DraftValue::Words(vec!["x".to_owned()])));
        assert_eq!(aliases(1), Some(DraftValue::Words(vec!["y".to_owned()])));
        assert_eq!(models.iter().map(|model| model.keys.left_out_count()).collect::<Vec<_>>(), [2, 1, 0, 0]);
        assert!(models[2].fault.is_some() && models[3].fault.is_some());
    }
}
