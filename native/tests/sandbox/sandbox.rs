//! The sandbox that all tests share, and the ways in which they use it.

use offload_native::{
    Build, Config, Error, Input, Language, NativeProgram, Outcome, Platform, Sandbox, SandboxLimits, Source,
};
use std::sync::OnceLock;
use std::time::Duration;

pub const GCC: &str = "gcc <name>.c -o <name>";

pub fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| sandbox_of(patient()))
}

/// Wall-clock time for what ends in another way: far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(300);

fn patient() -> Config {
    Config { build: SandboxLimits { wall: PATIENCE, ..SandboxLimits::build() }, ..Config::default() }
}

pub fn sandbox_of(config: Config) -> Sandbox {
    Sandbox::probe(config).expect("bubblewrap and user namespaces: cargo xtask setup")
}

/// One whose builds have other limits.
pub fn with_builds(change: impl FnOnce(&mut SandboxLimits)) -> Sandbox {
    let mut config = patient();
    change(&mut config.build);
    sandbox_of(config)
}

pub async fn build_in(sandbox: &Sandbox, code: &str, how: &str) -> Result<NativeProgram, Error> {
    let language = if how.contains("++") { Language::Cpp } else { Language::C };
    let build = match how.split(' ').next() {
        Some("gcc" | "g++") => Build::Command(how.to_owned()),
        _ => Build::Makefile(how.into()),
    };
    let source = Source { name: "hello".to_owned(), code: code.into(), language, build };
    sandbox.build(source, Platform::Native).await
}

pub async fn build(code: &str, how: &str) -> Result<NativeProgram, Error> {
    build_in(sandbox(), code, how).await
}

pub fn limits() -> SandboxLimits {
    SandboxLimits { cpu: Duration::from_secs(3), wall: PATIENCE, memory: 64 << 20, ..SandboxLimits::run() }
}

pub fn args<const N: usize>(args: [&str; N]) -> Input {
    Input { args: args.map(str::to_owned).to_vec(), ..Input::default() }
}

pub async fn run_with(code: &str, input: Input, limits: SandboxLimits) -> Outcome {
    let program = build(code, GCC).await.unwrap();
    sandbox().run(&program, input, limits).await.unwrap()
}

pub async fn run(code: &str) -> Outcome {
    run_with(code, Input::default(), limits()).await
}

pub fn stdout(outcome: &Outcome) -> &str {
    std::str::from_utf8(&outcome.stdout).unwrap()
}

/// What a line of a makefile printed; the build is made to fail, since that is what shows it.
pub async fn make_says(script: &str) -> String {
    let makefile = format!("all:\n\t@{script}; echo; echo error; false\n");
    match build("", &makefile).await {
        Err(Error::Build { output, .. }) => output,
        other => panic!("{other:?}"),
    }
}
