//! What a request has built before it runs.

use offload_native::{Build, Error, Language, NativeProgram, Platform, Project, Sandbox, Source};
use offload_protocol::request::{self, Digest, Files};

/// Source that a request carries, and how it is built.
pub enum Buildable {
    /// One file, with a compiler command or a makefile.
    Source(request::Source),
    /// Several files, with a makefile.
    Files(Files),
}

impl Buildable {
    /// Builds it in a sandbox of its own. Dropping the future ends the build.
    ///
    /// # Errors
    ///
    /// What the compilers say, the limit that was reached, or what the sandbox lacks.
    pub async fn build(&self, sandbox: &Sandbox, platform: Platform<'_>) -> Result<NativeProgram, Error> {
        match self {
            Buildable::Source(source) => sandbox.build(one_file(source), platform).await,
            Buildable::Files(given) => {
                let project = Project {
                    files: given
                        .files
                        .iter()
                        .map(|(path, contents)| (path.as_str(), &contents[..]))
                        .collect(),
                    makefile: given.makefile.as_deref().map(str::as_bytes),
                    target: given.target.as_deref(),
                };
                sandbox.build_project(&project, platform).await
            }
        }
    }

    /// What the request calls its program; empty where it does not say.
    pub fn name(&self) -> &str {
        match self {
            Buildable::Source(source) => &source.name,
            Buildable::Files(Files { target, .. }) => target.as_deref().unwrap_or_default(),
        }
    }

    /// What an operator finds it by: the SHA-256 of the one file, as `sha256sum` prints it; of several files that of
    /// what `sha256sum` prints for all of them in the order of their paths.
    pub fn digest(&self) -> Digest {
        match self {
            Buildable::Source(source) => Digest::of(&source.text),
            Buildable::Files(Files { files, .. }) => {
                let mut files: Vec<_> = files.iter().collect();
                files.sort();
                let lines = files.into_iter().map(|(path, contents)| {
                    let digest = Digest::of(contents).hex();
                    format!("{digest}  {path}\n")
                });
                Digest::of(lines.collect::<String>().as_bytes())
            }
        }
    }
}

fn one_file(source: &request::Source) -> Source {
    Source {
        name: source.name.clone(),
        code: source.text.to_vec(),
        language: match source.language() {
            request::Language::C => Language::C,
            request::Language::Cpp => Language::Cpp,
        },
        build: match &source.build {
            request::Build::Command(line) => Build::Command(line.clone()),
            request::Build::Makefile(text) => Build::Makefile(text.clone().into_bytes()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn several_files_have_the_digest_of_what_sha256sum_prints() {
        let file = |path: &str, contents: &'static str| (path.to_owned(), Bytes::from(contents));
        let files = vec![file("b.c", "int b;\n"), file("a/x.h", "")];
        let lines = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a/x.h\n\
                     9f0576e20ec48d16fa8aac96a27e3c83a0b019fc9bc7abd1accd44287c157381  b.c\n";
        let source = Buildable::Files(Files { files, makefile: Some("all:".into()), target: None });
        assert_eq!(source.digest(), Digest::of(lines.as_bytes()));
    }
}
