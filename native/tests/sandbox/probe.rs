//! What is found out about a machine before it takes strangers' programs.

use offload_native::{Config, Sandbox};

#[tokio::test]
async fn a_machine_without_bubblewrap_says_so() {
    let config = Config { bubblewrap: "/nowhere/bwrap".into(), ..Config::default() };
    let error = Sandbox::probe(config).unwrap_err();
    assert!(error.why.contains("bubblewrap") && error.hint.contains("install"), "{error}");
    let config = Config { bubblewrap: "/bin/false".into(), ..Config::default() };
    assert!(Sandbox::probe(config).unwrap_err().hint.contains("user namespaces"));
    let config = Config { toolchain: Vec::new(), ..Config::default() };
    let error = Sandbox::probe(config).unwrap_err();
    assert!(error.why.contains("bwrap: execvp"), "{error}");
}
