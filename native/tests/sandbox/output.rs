//! Programs and builds that print for ever.

use crate::sandbox::{build, limits, run_with};
use offload_native::{Ending, Error, Input, Limit, SandboxLimits};
use std::time::Duration;

#[tokio::test]
async fn output_is_capped() {
    let flood = |to: &str| format!("#include <stdio.h>\nint main() {{ for (;;) fputs(\"flood \", {to}); }}");
    let small = SandboxLimits { stdout: 1000, stderr: 1000, cpu: Duration::from_millis(500), ..limits() };
    let outcome = run_with(&flood("stdout"), Input::default(), small.clone()).await;
    assert_eq!((outcome.ending, outcome.stdout.len()), (Ending::Limit(Limit::Stdout), 1000));
    let outcome = run_with(&flood("stderr"), Input::default(), small).await;
    assert_eq!((outcome.ending, outcome.stderr.len()), (Ending::Limit(Limit::Cpu), 1000));
    match build("", "all:\n\t@yes error").await {
        Err(Error::BuildLimit { limit: Limit::Stderr, output }) => {
            assert!(output.len() <= offload_native::MAX_DIAGNOSTICS, "{}", output.len());
        }
        other => panic!("{other:?}"),
    }
}
