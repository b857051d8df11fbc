//! The projects of `tests/projects/`: several files of C, and what their programs are expected to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::built;
use crate::envelope;
use crate::guest::{self, Case};

/// A folder with its cases.
pub struct Project {
    /// The folder.
    pub folder: PathBuf,
    /// What its programs have to do.
    pub cases: Vec<Case>,
}

/// All projects, by name.
pub fn all() -> Result<Vec<Project>> {
    let mut projects = Vec::new();
    for entry in fs::read_dir(built::projects())? {
        let folder = entry?.path();
        if folder.is_dir() {
            let cases = guest::read_cases(&folder.join("cases.toml"))?;
            projects.push(Project { folder, cases });
        }
    }
    projects.sort_by(|a, b| a.folder.cmp(&b.folder));
    ensure!(!projects.is_empty(), "there are no projects");
    Ok(projects)
}

impl Project {
    /// Path and contents of all files, in the order of their paths.
    pub fn contents(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        read(&self.folder, "", &mut files)?;
        Ok(files)
    }

    /// All files as an envelope's `files`.
    pub fn files(&self) -> Result<Value> {
        let files = self.contents()?.into_iter().map(|(path, contents)| (path, envelope::bytes(contents)));
        Ok(Value::Object(files.collect()))
    }

    /// An envelope for each case, in their order.
    pub fn requests(&self) -> Result<Vec<Value>> {
        let files = self.files()?;
        let request = |case: &Case| {
            let mut request = json!({
                "files": files, "args": case.args, "env": case.env, "stdin": envelope::bytes(case.stdin()),
            });
            if let Some(target) = &case.target {
                request["target"] = target.as_str().into();
            }
            request
        };
        Ok(self.cases.iter().map(request).collect())
    }
}

fn read(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_str().context("a path is not UTF-8")?);
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}
