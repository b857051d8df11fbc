//! The clients in Python for Linux devices, as processes: what they print of the answers, and how they end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result};
use offload_tests::deployment::Deployment;
use offload_tests::on_each_broker;
use offload_tests::process::Process;
use offload_tests::{PATIENCE, built};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::time::timeout;

/// Prints the product of its arguments; with -DPLUS their sum.
const CALCULATE: &str = "#include <stdio.h>\n#include <stdlib.h>\n#ifdef PLUS\n#define STEP(a, b) ((a) + (b))\n#else\n\
    #define STEP(a, b) ((a) * (b))\n#endif\nint main(int argc, char **argv) {\n    int result = atoi(argv[1]);\n    \
    for (int i = 2; i < argc; i++)\n        result = STEP(result, atoi(argv[i]));\n    printf(\"%d\\n\", result);\n}\n";

const MAKEFILE: &str =
    "all: <name>\n<name>: <name>.o\n\tgcc -o $@ $<\n<name>.o: <name>.c\n\tgcc -DPLUS -c $<\n";

/// On an external broker it has to be allowed.
const SOURCE_ALLOWED: &str = "native = \"native\"\n";

/// The flags that lead a client to the gateway.
fn connection(address: SocketAddr) -> [String; 4] {
    ["-h".to_owned(), address.ip().to_string(), "-p".to_owned(), address.port().to_string()]
}

/// Runs a client in a folder to its end.
async fn run(folder: &Path, address: SocketAddr, client: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(built::python()?);
    // Compiled modules would be left behind in the sources.
    command.arg("-B").arg(built::python_client(client)?).args(connection(address)).args(arguments);
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.context("it does not end")?.context("it cannot be run")
}

/// Expects these lines and a good end.
async fn prints(deployment: &Deployment, client: &str, arguments: &[&str], lines: &str) -> Result<()> {
    let folder = TempDir::new()?;
    std::fs::write(folder.path().join("calculate.c"), CALCULATE)?;
    std::fs::write(
        folder.path().join("plus.cpp"),
        "#include <iostream>\nint main() { std::cout << \"C++\"; }\n",
    )?;
    std::fs::write(folder.path().join("Makefile"), MAKEFILE)?;
    let output = run(folder.path(), deployment.address(), client, arguments).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((String::from_utf8_lossy(&output.stdout), errors), (lines.into(), "".into()), "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    Ok(())
}

/// Expects a bad end with this error.
async fn fails(address: SocketAddr, client: &str, arguments: &[&str], error: &str) -> Result<()> {
    let folder = TempDir::new()?;
    std::fs::write(folder.path().join("calculate.c"), CALCULATE)?;
    let output = run(folder.path(), address, client, arguments).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("error: ") && errors.contains(error), "{arguments:?}: {errors}");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{arguments:?}");
    Ok(())
}

/// Otherwise a round of requests and acknowledgements waits for a timer of the other end.
#[tokio::test]
async fn small_packets_are_sent_at_once() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let script = "import device, socket, sys\n\
        options = device.argument_parser('', 0).parse_args(sys.argv[1:])\n\
        client = device.Device(options).client\n\
        client.connect(options.host, options.port)\n\
        print(client.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))\n";
    let client = built::python_client("device.py")?;
    let mut command = Command::new(built::python()?);
    command.args(["-B", "-c", script]).args(connection(deployment.address()));
    command
        .current_dir(client.parent().context("a file lies in a folder")?)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.context("it does not end")??;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");
    Ok(())
}

on_each_broker! {
    local,
    offload with ["", SOURCE_ALLOWED],
}

async fn local(deployment: Deployment) -> Result<()> {
    prints(&deployment, "local.py", &["--count", "1"], "3\n").await?;
    prints(&deployment, "local.py", &["--count", "3", "--interval", "0", "40", "2"], "42\n42\n42\n").await?;
    prints(&deployment, "local.py", &["--count", "1", "--", "-5", "7"], "2\n").await
}

/// File, build part and arguments are the user's choice.
async fn offload(deployment: Deployment) -> Result<()> {
    let offload = "offload.py";
    prints(&deployment, offload, &["--count", "1", "calculate.c", "6", "7"], "42\n").await?;
    let twice = ["--count", "2", "--interval", "0", "calculate.c", "6", "8"];
    prints(&deployment, offload, &twice, "48\n48\n").await?;
    let command = ["--count", "1", "--build", "gcc -DPLUS <name>.c -o <name>", "calculate.c", "6", "7"];
    prints(&deployment, offload, &command, "13\n").await?;
    let makefile = ["--count", "1", "--makefile", "Makefile", "calculate.c", "6", "7", "8"];
    prints(&deployment, offload, &makefile, "21\n").await?;
    let cpp = ["--count", "1", "--build", "g++ <name>.cpp -o <name>", "plus.cpp"];
    prints(&deployment, offload, &cpp, "C++\n").await
}

/// Both publish to `localCode/` and listen to `result/` at the same time, and each prints its own answers alone.
#[tokio::test]
async fn two_at_once_on_the_embedded_broker() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let (small, large) = ("3\n".repeat(50), "300\n".repeat(50));
    let flags = ["--count", "50", "--interval", "0"];
    let (first, second) = ([&flags[..], &["1", "2"]].concat(), [&flags[..], &["100", "200"]].concat());
    let first = prints(&deployment, "local.py", &first, &small);
    let second = prints(&deployment, "local.py", &second, &large);
    let (first, second) = tokio::join!(first, second);
    first.and(second)
}

/// Without `--count` it goes on until ctrl-c.
#[tokio::test]
async fn ctrl_c_ends_it() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let folder = TempDir::new()?;
    let client = built::python_client("local.py")?;
    let connection = connection(deployment.address());
    let mut arguments = vec!["-B", client.to_str().context("a path is not UTF-8")?, "--interval", "0.01"];
    arguments.extend(connection.iter().map(String::as_str));
    let mut process = Process::start(&built::python()?, &arguments, &folder.path().join("log"))?;
    for _ in 0..3 {
        assert_eq!(process.line().await?, "3");
    }
    process.signal(Signal::INT)?;
    assert_eq!(process.end().await?.code(), Some(130), "{}", process.log());
    assert_eq!(process.log(), "");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_sent_is_said() -> Result<()> {
    // Bound without listening: nobody else gets the port, and connections to it are refused.
    let nobody = TcpSocket::new_v4()?;
    nobody.bind("127.0.0.1:0".parse()?)?;
    let address = nobody.local_addr()?;
    fails(address, "local.py", &["--count", "1"], "cannot connect to 127.0.0.1:").await?;
    fails(address, "offload.py", &["missing.c"], "missing.c").await?;
    let build = ["--build", "gcc ---- <name>.c", "calculate.c"];
    fails(address, "offload.py", &build, "cannot be sent in this form").await
}
