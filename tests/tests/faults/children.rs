//! The gateway's children die: the compile child, the compilers in the sandbox, the sandbox itself. Whoever asked is
//! told that it was the gateway's fault, and nothing is remembered against the code: the next request is answered.

use anyhow::{Result, ensure};
use offload_tests::answer::refused;
use offload_tests::deployment::Deployment;
use offload_tests::device::Version;
use offload_tests::source::{COMMAND, legacy, program};

use crate::processes::kill_one;

/// A module that takes a compiler seconds, within all limits, where it has no baseline code.
const OPTIMIZED_ONLY: &str = "[compiler]\nbaseline = false\n";

fn slow_to_compile() -> Result<Vec<u8>> {
    let function = "(func (param i32) (result i32) local.get 0 i32.const 1 i32.add i32.const 3 i32.mul)";
    Ok(wat::parse_str(format!("(module (func (export \"_start\")) {})", function.repeat(20_000)))?)
}

/// A source that takes gcc a second: many functions, from few bytes.
fn slow_to_build() -> String {
    let step = "#define A(n) int f##n(int x) { return x * 3 + n; }\n";
    let mut source = step.to_owned();
    let mut last = 'A';
    for next in 'B'..='E' {
        let calls: String = (0..10).map(|digit| format!("{last}(n##{digit}) ")).collect();
        source += &format!("#define {next}(n) {calls}\n");
        last = next;
    }
    source + "E(1)\n" + &program("puts(\"built\");")
}

/// A killed compile child is no word about the module.
#[tokio::test]
async fn a_killed_compile_child_is_our_fault_and_the_module_is_compiled_the_next_time() -> Result<()> {
    let deployment = Deployment::embedded(OPTIMIZED_ONLY).await?;
    let mut device = deployment.device(Version::V5, "dev").await?;
    device.publish("inputCode/dev", slow_to_compile()?).await?;
    kill_one(&deployment.gateway, "a compile child", |child| child.command.contains("compile-child")).await?;
    refused(&device.message().await?, "internal", "the gateway failed")?;
    deployment.gateway.logged(&["internal error: compile child", "SIGKILL"]).await?;
    assert_eq!(device.ask("inputCode/dev", slow_to_compile()?).await?.text(), "");
    Ok(())
}

/// A killed compiler is no error of the source, though gcc says so as it says those.
#[tokio::test]
async fn a_killed_compiler_is_our_fault_and_the_source_is_built_the_next_time() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "dev").await?;
    let request = legacy("slow", "", &slow_to_build(), COMMAND);
    device.publish("inputCode/dev", request.clone()).await?;
    kill_one(&deployment.gateway, "a C compiler", |child| child.name == "cc1").await?;
    refused(&device.message().await?, "internal", "the gateway failed")?;
    deployment.gateway.logged(&["internal error: native", "killed from outside"]).await?;
    assert_eq!(device.ask("inputCode/dev", request).await?.text(), "built\n");
    Ok(())
}

/// A sandbox that is killed takes its program along, and nothing else.
#[tokio::test]
async fn a_killed_sandbox_is_our_fault_and_the_next_one_runs() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "dev").await?;
    let waiting = program("if (argc > 1) { for (;;) pause(); } puts(\"ran\");");
    // Built before it is asked for in earnest.
    assert_eq!(device.ask("inputCode/dev", legacy("wait", "", &waiting, COMMAND)).await?.text(), "ran\n");
    device.publish("inputCode/dev", legacy("wait", "long", &waiting, COMMAND)).await?;
    kill_one(&deployment.gateway, "bubblewrap", |child| child.name == "bwrap").await?;
    refused(&device.message().await?, "internal", "the gateway failed")?;
    deployment.gateway.logged(&["internal error: native"]).await?;
    let answer = device.ask("inputCode/dev", legacy("wait", "", &waiting, COMMAND)).await?;
    ensure!(answer.text() == "ran\n", "{}", answer.text());
    Ok(())
}
