//! What becomes of a gateway whose data directory is removed while it runs.

use anyhow::{Result, ensure};
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest;

/// Modules that are sent, each another one. A line for each would be more than two intervals' of the log.
const MODULES: u8 = 30;
/// Lines of one cause in two intervals.
const MAX_LINES: usize = 20;

/// Requests are answered, nothing is made anew that others could enter, and the log has a few lines and not one a
/// request.
#[tokio::test]
async fn requests_are_answered_without_it_and_it_is_not_made_again() -> Result<()> {
    // With a journal it ends, since it could not keep what it acknowledges.
    let gateway = Gateway::embedded("durability = \"off\"\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "device").await?;
    device.subscribe("result/device").await?;
    std::fs::remove_dir_all(gateway.data_dir())?;
    let module = guest::module("hello")?;
    let expected = device.ask("inputCode/device", module.clone()).await?.payload;
    for number in 0..MODULES {
        // A custom section without a name makes it another module.
        let other = [&module[..], &[0, 2, 0, number]].concat();
        assert_eq!(device.ask("inputCode/device", other).await?.payload, expected);
    }
    ensure!(!gateway.data_dir().exists(), "it was made again");
    let log = std::fs::read_to_string(gateway.data_dir().with_file_name("log"))?;
    for cause in ["cannot keep a module", "cannot keep an artifact"] {
        let lines = log.matches(cause).count();
        ensure!((1..=MAX_LINES).contains(&lines), "{lines} times {cause}");
    }
    Ok(())
}
