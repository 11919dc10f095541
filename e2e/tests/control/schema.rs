//! The kinds' own rules, through the real API server: the files that the unit tests of `crds` judge too.
use std::path::{Path, PathBuf};

use super::api::Api;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/tests/data").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn create(api: &Api, text: &str) -> Result<String, String> {
    api.ask(&["create", "--dry-run=server", "--validate=strict", "-f", "-"], text)
}

#[test]
fn the_api_server_takes_every_valid_manifest() {
    let api = Api::open();
    let wrong: Vec<_> = files("valid")
        .iter()
        .filter_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            // The demo's objects have the same names.
            let text = text.replacen("metadata: {name: corp}", "metadata: {name: e2e-corp}", 1);
            create(&api, &text).err().map(|said| format!("{}: {said}", file.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_api_server_refuses_every_invalid_manifest_where_and_as_it_says() {
    let api = Api::open();
    let mut wrong = Vec::new();
    let files = files("invalid");
    assert!(files.len() >= 100, "{}", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = |key: &str| {
            let prefix = format!("# {key}:");
            text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().trim().to_owned()
        };
        let (field, message) = (expected("field"), expected("message"));
        match create(&api, &text) {
            Ok(_) => wrong.push(format!("{}: taken", file.display())),
            Err(said) => {
                let named = |wanted: &str| wanted.split('|').any(|part| said.contains(part));
                if !named(&field) || !named(&message) {
                    wrong.push(format!("{}: wants {field}: {message}; got {said}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} files:\n{}", wrong.len(), wrong.join("\n"));
}
