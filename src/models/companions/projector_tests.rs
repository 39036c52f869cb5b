//! Tests of the choice of projectors, in folders and in snapshots.

use super::*;
use crate::models::sample::GgufSample;

fn projector() -> GgufSample {
    GgufSample::of("clip").text("general.type", "mmproj").flag("clip.has_vision_encoder", true)
}

fn model(width: u32) -> GgufSample {
    GgufSample::chat().uint("llama.embedding_length", width)
}

/// Returns the name of the projector that is found for each model, or the names of those that tie.
fn search(models: &[(&str, u32)], projectors: &[(&str, Option<u32>)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, width) in models {
        model(*width).write(dir.path(), name);
    }
    for (name, width) in projectors {
        let sample = width.map_or_else(projector, |width| projector().uint("clip.vision.projection_dim", width));
        sample.write(dir.path(), name);
    }
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let outcome = |(model, _): &(&str, u32)| {
        let path = dir.path().join(model);
        let search = find_projector(&path, &gguf::read(&path).unwrap());
        assert!(search.found.is_none() || search.tied.is_empty());
        let unclear = search.tied.iter().map(|path| name(path)).collect::<Vec<_>>().join(" or ");
        search.found.map_or(unclear, |found| name(&found.path))
    };
    models.iter().map(outcome).collect()
}

#[test]
fn one_projector_beside_one_model_is_its_projector_whatever_the_names() {
    for name in ["mmproj-F16.gguf", "mmproj.gguf", "vision.gguf", "other-mmproj.gguf", "x.mmproj.gguf"] {
        assert_eq!(search(&[("gemma-3-4b-it-Q4_K_M.gguf", 64)], &[(name, Some(64))]), [name]);
        assert_eq!(search(&[("gemma-3-4b-it-Q4_K_M.gguf", 64)], &[(name, None)]), [name]);
    }
    assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &[]), [""]);
    assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &[("mmproj.gguf", Some(128))]), [""], "it does not fit");
}

#[test]
fn among_several_the_longest_common_name_decides() {
    let models = [("gemma-3-4b-it-Q4_K_M.gguf", 64), ("gemma-3-4b-it-UD-Q8_0.gguf", 64), ("Gemma-3-12b-it.gguf", 96)];
    let (small, large) = ("mmproj-gemma-3-4b-it-f16.gguf", "gemma-3-12b-it-mmproj-BF16.gguf");
    assert_eq!(search(&models, &[(small, None), (large, None)]), [small, small, large]);
    assert_eq!(search(&models, &[(small, Some(64))]), [small, small, ""], "the prefix is not a whole name");
    let llava = [("llava-v1.6-mistral-7b.Q4_K_M.gguf", 64), ("qwen3-8b.gguf", 64)];
    assert_eq!(
        search(&llava, &[("llava-v1.6-mistral-7b.mmproj-q8_0.gguf", None)]).concat(),
        "llava-v1.6-mistral-7b.mmproj-q8_0.gguf"
    );
    let minicpm = [("MiniCPM-V-2_6-Q4_K_M.gguf", 64), ("MiniCPM-V-4-Q4_K_M.gguf", 64)];
    assert_eq!(search(&minicpm, &[("mmproj-MiniCPM-V-2_6-f16.gguf", None)]), ["mmproj-MiniCPM-V-2_6-f16.gguf", ""]);
}

#[test]
fn several_equally_good_ones_and_names_without_a_model_choose_none() {
    for (two, both) in [
        (["mmproj-F16.gguf", "mmproj.gguf"], "mmproj-F16.gguf or mmproj.gguf"),
        (["mmproj-F16.gguf", "vision-BF16.gguf"], "mmproj-F16.gguf or vision-BF16.gguf"),
        (["mmproj-F16.gguf", "mmproj-fp16.gguf"], "mmproj-F16.gguf or mmproj-fp16.gguf"),
        (["mmproj-Q4_K_M.gguf", "mmproj-Q4_0.gguf"], "mmproj-Q4_0.gguf or mmproj-Q4_K_M.gguf"),
    ] {
        assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &two.map(|name| (name, None))), [both]);
    }
    assert_eq!(search(&[("a.gguf", 64), ("b.gguf", 64)], &[("mmproj-F16.gguf", None)]), ["", ""]);
}

/// Regression: a model beside the projectors of a whole repository was served without vision.
#[test]
fn of_projectors_that_differ_in_precision_alone_one_is_preferred() {
    let all = ["mmproj-Q8_0.gguf", "mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"];
    for count in 1..=all.len() {
        let projectors: Vec<_> = all[..count].iter().map(|name| (*name, None)).collect();
        assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &projectors), [all[count - 1]]);
    }
    let two = [("mmproj-a-f16.gguf", None), ("mmproj-a-q8_0.gguf", None)];
    assert_eq!(search(&[("a.gguf", 64), ("b.gguf", 64)], &two), ["mmproj-a-f16.gguf", ""]);
    let dir = tempfile::tempdir().unwrap();
    let path = model(64).write(dir.path(), "a.gguf");
    let [first, second] = ["mmproj-BF16.gguf", "mmproj-F16.gguf"].map(|name| projector().write(dir.path(), name));
    let search = find_projector(&path, &gguf::read(&path).unwrap());
    assert_eq!((search.found.unwrap().path, search.passed_over, search.unused), (second, vec![first], vec![]));
    // One that reads something else does not differ in precision alone.
    projector().flag("clip.has_audio_encoder", true).write(dir.path(), "mmproj-F16.gguf");
    assert_eq!(find_projector(&path, &gguf::read(&path).unwrap()).tied.len(), 2);
}

#[test]
fn parts_adapters_and_drafts_count_as_no_further_model() {
    let dir = tempfile::tempdir().unwrap();
    let first = model(64).uint("split.count", 2).write(dir.path(), "big-00001-of-00002.gguf");
    GgufSample::default().write(dir.path(), "big-00002-of-00002.gguf");
    GgufSample::chat().text("general.type", "adapter").write(dir.path(), "lora.gguf");
    model(64).write(dir.path(), "big-draft.gguf");
    std::fs::write(dir.path().join("broken.gguf"), "<html>").unwrap();
    let expected = projector().flag("clip.has_audio_encoder", true).write(dir.path(), "mmproj-F16.gguf");
    let found = find_projector(&first, &gguf::read(&first).unwrap()).found.unwrap();
    assert_eq!((&found.path, found.size_bytes), (&expected, expected.metadata().unwrap().len()));
    assert_eq!(found.modalities, [InputModality::Image, InputModality::Audio]);
    assert_eq!(read_projector(&expected).unwrap(), found);
    let refused = read_projector(&first).unwrap_err().to_string();
    assert!(refused.contains("no multimodal projector"), "{refused}");
}

#[test]
fn a_name_with_mmproj_in_it_makes_no_projector() {
    let dir = tempfile::tempdir().unwrap();
    let named_so = model(64).write(dir.path(), "mmproj-study-llama.gguf");
    let other = model(64).write(dir.path(), "llama.gguf");
    let search = find_projector(&other, &gguf::read(&other).unwrap());
    let broken = search.broken.clone();
    assert_eq!(search, ProjectorSearch { broken: broken.clone(), ..ProjectorSearch::default() });
    assert!(matches!(&broken[..], [one] if one.path == named_so && one.fault.contains("no multimodal projector")));
    assert!(read_projector(&named_so).is_err());
    let own = find_projector(&named_so, &gguf::read(&named_so).unwrap());
    assert_eq!(own, ProjectorSearch::default(), "the model itself is no broken projector");
}

#[test]
fn a_broken_projector_beside_a_model_was_dropped_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let path = model(64).write(dir.path(), "x.gguf");
    let whole = projector().tensor("v.weight", 0, &[4, 4]).write(dir.path(), "vision.gguf");
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&whole, &bytes[..bytes.len() - 1]).unwrap();
    std::fs::write(dir.path().join("mmproj-cut.gguf"), &bytes[..20]).unwrap();
    std::fs::write(dir.path().join("x-mmproj.gguf"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("mmproj.gguf")).unwrap();
    std::fs::write(dir.path().join("other.gguf"), "<html>").unwrap();
    let search = find_projector(&path, &gguf::read(&path).unwrap());
    let broken: Vec<String> =
        search.broken.iter().map(|one| format!("{} {}", one.path.file_name().unwrap().display(), one.fault)).collect();
    let expected = [
        "mmproj-cut.gguf is cut short",
        "mmproj.gguf cannot be read: No such file",
        "vision.gguf is cut short",
        "x-mmproj.gguf is not a GGUF file: it is empty",
    ];
    assert_eq!(broken.len(), expected.len(), "{broken:?}");
    assert!(broken.iter().zip(expected).all(|(found, start)| found.starts_with(start)), "{broken:?}");
}

/// Regression: a projector in the root of a repository was downloaded for a model in a folder, and not used.
#[test]
fn in_a_snapshot_the_projector_that_a_download_brings_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("models--o--n/snapshots/abc");
    let root = projector().write(&snapshot, "mmproj-F16.gguf");
    let passed_over = projector().write(&snapshot, "mmproj-BF16.gguf");
    let deep = model(64).write(&snapshot, "Q8_0/vl-Q8_0.gguf");
    let other = model(64).write(&snapshot, "vl-Q4_K_M.gguf");
    for path in [&deep, &other] {
        let search = find_projector(path, &gguf::read(path).unwrap());
        assert_eq!(search.found.map(|found| found.path).as_ref(), Some(&root), "{}", path.display());
        assert_eq!((search.passed_over, search.unused, search.tied), (vec![passed_over.clone()], vec![], vec![]));
    }
    let nearer = projector().write(&snapshot, "Q8_0/mmproj-vl-Q8_0.gguf");
    assert_eq!(find_projector(&deep, &gguf::read(&deep).unwrap()).found.unwrap().path, nearer);
    std::fs::write(&nearer, "<html>").unwrap();
    let search = find_projector(&deep, &gguf::read(&deep).unwrap());
    assert_eq!((search.found.unwrap().path, search.broken.len()), (root, 1), "the next one stands in for a broken one");
}

/// Regression: two quantisations of one model counted as two models, so that a projector without a name was not used.
#[test]
fn quantisations_of_one_model_count_as_one() {
    let models = [("gemma-3-4b-it-Q4_K_M.gguf", 64), ("gemma-3-4b-it-UD-Q8_0.gguf", 64)];
    assert_eq!(search(&models, &[("mmproj-F16.gguf", None)]), ["mmproj-F16.gguf", "mmproj-F16.gguf"]);
}

#[test]
fn a_projector_of_another_width_is_passed_over_in_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("models--o--n/snapshots/abc");
    projector().uint("clip.vision.projection_dim", 128).write(&snapshot, "mmproj-F16.gguf");
    let fits = projector().uint("clip.vision.projection_dim", 64).write(&snapshot, "mmproj-BF16.gguf");
    let path = model(64).write(&snapshot, "vl.gguf");
    assert_eq!(find_projector(&path, &gguf::read(&path).unwrap()).found.unwrap().path, fits);
}
