//! Guests as large as common toolchains make them, and no limit raised for them.

use anyhow::{Context, Result};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};

async fn runs(device: &mut Device, what: &str, module: impl Into<bytes::Bytes>) -> Result<()> {
    let answer = device.ask("inputCode/large", module.into()).await?;
    assert_eq!(answer.property("status"), Some("ok"), "{what}: {}", answer.text());
    Ok(())
}

#[tokio::test]
async fn counts_and_sizes_of_common_toolchains_are_within_the_defaults() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "large").await?;
    let module = |fields: &str| wat::parse_str(format!("(module {fields} (func (export \"_start\")))"));
    // The linker of Go: 24 000 for a hello, 44 000 with net/http, and never more than 100 000.
    for count in [30_000, 100_000] {
        let segments: String = (0..count).map(|n| format!("(data (i32.const {}) \"abc\")", n * 16)).collect();
        runs(&mut device, "data segments", module(&format!("(memory 30) {segments}"))?).await?;
    }
    // componentize-py: 2 500 in all modules of a hello.
    let imports = r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#.repeat(5_000);
    runs(&mut device, "imports", module(&imports)?).await?;
    // A component of 18 MB is Python with a hello; a custom section makes up for it.
    let bytes = "x".repeat(20_000_000);
    runs(&mut device, "bytes", module(&format!("(@custom \"padding\" \"{bytes}\")"))?).await
}

/// README's block for larger ones, as it is printed.
#[tokio::test]
async fn the_documented_configuration_lets_in_what_is_larger() -> Result<()> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let section = readme.split_once("### Large guests").context("the section")?.1;
    let block =
        section.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).context("a block")?;
    let exports: String = (0..15_000).map(|n| format!("(export \"e{n}\" (func 0))")).collect();
    let bytes = "x".repeat(40_000_000);
    let module = wat::parse_str(format!(
        "(module (memory 2048) {exports} (@custom \"padding\" \"{bytes}\") (func (export \"_start\")))"
    ))?;
    let deployment = Deployment::embedded(block).await?;
    runs(&mut deployment.device(Version::V5, "large").await?, "larger", module).await
}
