//! The client in Python: its types, its face for asyncio, and its two examples for Linux devices as processes: what
//! they print of the answers, and how they end. What all clients do is in `client_conformance.rs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
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

/// Runs an example in a folder to its end.
async fn run(
    python: &Path,
    folder: &Path,
    address: SocketAddr,
    example: &str,
    arguments: &[&str],
) -> Result<Output> {
    let mut command = Command::new(python);
    // Compiled modules would be left behind in the sources.
    command.arg("-B").arg(self::example(example)?).args(connection(address)).args(arguments);
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.context("it does not end")?.context("it cannot be run")
}

fn example(name: &str) -> Result<PathBuf> {
    built::client(&format!("python/examples/{name}"))
}

/// Runs this with these arguments, beside the library; expects that it succeeds, and returns what it prints.
async fn python(arguments: &[&str]) -> Result<String> {
    let folder = built::client("python/pyproject.toml")?;
    let folder = folder.parent().context("a file lies in a folder")?;
    let mut command = Command::new(built::python()?);
    command.arg("-B").args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.context("it does not end")??;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
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
    for python in [built::python()?, built::debians_python()?] {
        let output = run(&python, folder.path(), deployment.address(), client, arguments).await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (String::from_utf8_lossy(&output.stdout), errors),
            (lines.into(), "".into()),
            "{arguments:?}"
        );
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
    Ok(())
}

/// Expects a bad end with this error.
async fn fails(address: SocketAddr, client: &str, arguments: &[&str], error: &str) -> Result<()> {
    let folder = TempDir::new()?;
    std::fs::write(folder.path().join("calculate.c"), CALCULATE)?;
    let output = run(&built::python()?, folder.path(), address, client, arguments).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("error: ") && errors.contains(error), "{arguments:?}: {errors}");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{arguments:?}");
    Ok(())
}

#[tokio::test]
async fn its_types_are_right_and_its_syntax_is_that_of_python_3_9() -> Result<()> {
    // No cache, which would be left behind in the sources.
    let checked = python(&["-m", "mypy", "--cache-dir", "/dev/null"]).await?;
    ensure!(checked.starts_with("Success"), "{checked}");
    let script = "import ast, pathlib\n\
        files = list(pathlib.Path('.').rglob('*.py'))\n\
        for file in files: ast.parse(file.read_text(), feature_version=(3, 9))\n\
        print(len(files) > 5)\n";
    assert_eq!(python(&["-c", script]).await?, "True\n");
    Ok(())
}

/// Otherwise a round of requests and acknowledgements waits for a timer of the other end.
#[tokio::test]
async fn small_packets_are_sent_at_once() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let script = "import socket, sys\n\
        from offload_client import Gateway\n\
        with Gateway(sys.argv[1]) as gateway:\n    \
            connection = gateway._connection._client.socket()\n    \
            print(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))\n";
    assert_eq!(python(&["-c", script, &format!("mqtt://{}", deployment.address())]).await?, "1\n");
    Ok(())
}

/// A future of asyncio, many of them at a time, and more than may be in flight.
#[tokio::test]
async fn asyncio_has_a_face_of_its_own() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let script = "import asyncio, sys\n\
        from dataclasses import replace\n\
        from offload_client import AsyncGateway, NotFound, Options\n\
        async def main():\n    \
            options = replace(Options.from_url(sys.argv[1]), max_in_flight=3)\n    \
            async with AsyncGateway(options) as gateway:\n        \
                answers = await asyncio.gather(*(gateway.run('add', [str(n), '1']) for n in range(20)))\n        \
                print([int(answer.text) for answer in answers] == list(range(1, 21)))\n        \
                try: await gateway.offload('missing.c')\n        \
                except NotFound as error: print(error)\n\
        asyncio.run(main())\n";
    let printed = python(&["-c", script, &format!("mqtt://{}", deployment.address())]).await?;
    assert_eq!(printed, "True\nnot-found: missing.c: No such file or directory\n");
    Ok(())
}

/// A request that its caller no longer wants makes room for others; `Answer.check` tells exit codes.
#[tokio::test]
async fn a_future_can_be_cancelled_and_an_answer_checked() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let script = "import sys\n\
        from dataclasses import replace\n\
        from offload_client import Exit, Gateway, Options, Request\n\
        from offload_client.request import code_of\n\
        with Gateway(replace(Options.from_url(sys.argv[1]), max_in_flight=1)) as gateway:\n    \
            sleeper = gateway.submit(Request(code_of(sys.argv[2]), ['60000']))\n    \
            sleeper.cancel()\n    \
            try: gateway.run('add', ['1', 'x']).check()\n    \
            except Exit as error: print(error)\n";
    let (url, sleep) = (format!("mqtt://{}", deployment.address()), built::guest("sleep")?);
    let printed = python(&["-c", script, &url, sleep.to_str().context("a path is not UTF-8")?]).await?;
    assert_eq!(printed, "exit: program exited with code 1: add: not a 64-bit integer: x\n");
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
    let client = example("local.py")?;
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
    let deployment = Deployment::embedded("").await?;
    fails(deployment.address(), "local.py", &["--count", "1", "a b"], "hold no white space").await
}
