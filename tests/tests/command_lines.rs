//! `offload-rt` and `offload-client` as people start them.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use offload_tests::built;
use offload_tests::deployment::Deployment;
use offload_tests::gateway::Gateway;
use offload_tests::guest::Expected;
use offload_tests::project;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// The client's exit code for its own errors.
const ERROR: i32 = 125;
/// And for a timeout.
const TIMEOUT: i32 = 124;

/// Runs a program to its end.
async fn run(program: &Path, arguments: &[&str], stdin: &[u8]) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, stdin).await
}

async fn run_command(mut command: Command, stdin: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("stdin is a pipe")?;
    // A program that does not read its input may be gone before it is written.
    let _ = input.write_all(stdin).await;
    drop(input);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    Ok(output.with_context(|| format!("it does not end: {command:?}"))??)
}

async fn offload_rt(arguments: &[&str]) -> Result<Output> {
    run(&built::program("offload-rt")?, arguments, b"").await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

/// `listening on mqtt://HOST:PORT` is the one line on stdout; port 0 picks a free one. SIGTERM and ctrl-c end it with
/// 0.
#[tokio::test]
async fn serve_says_where_and_ends_well_when_told_to() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let gateway = Gateway::embedded("").await?;
        assert_ne!(gateway.address()?.port(), 0);
        gateway.stop(signal).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_data_directory_has_one_gateway_at_a_time() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let data = gateway.data_dir();
    let second = offload_rt(&["serve", "--listen", "127.0.0.1:0", "--data-dir", path(&data)?]).await?;
    assert!(!second.status.success());
    assert!(second.stdout.is_empty(), "{}", text(&second.stdout));
    assert!(text(&second.stderr).contains(path(&data)?), "{}", text(&second.stderr));
    gateway.stop(Signal::TERM).await
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_its_place() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("bad.toml");
    let data = folder.path().join("data");
    for (configuration, line, told) in [
        ("[limits]\nmemroy = \"64MiB\"\n", 2, "memory"),
        ("name = \"box\"\n\n[limits]\nwall = \"10 parsecs\"\n", 4, "wall"),
        ("[workers]\ncount = 0\n", 2, "count"),
        ("[limits]\nfuel = \n", 2, ""),
    ] {
        std::fs::write(&file, configuration)?;
        let arguments =
            ["serve", "--config", path(&file)?, "--data-dir", path(&data)?, "--listen", "127.0.0.1:0"];
        let refused = offload_rt(&arguments).await?;
        let error = text(&refused.stderr);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{configuration}");
        assert!(error.contains(&format!("bad.toml:{line}")), "{configuration}: {error}");
        assert!(error.contains(told), "{configuration}: {error}");
    }
    Ok(())
}

/// `[--config FILE] [--listen HOST:PORT] [--broker URL] [--workers N] [--data-dir DIR] [--allow-native]`: what each of
/// them changes, a flag before the file.
#[tokio::test]
async fn each_flag_of_serve_goes_before_the_file() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("file.toml");
    std::fs::write(&file, "data_dir = \"/of/the/file\"\n[workers]\ncount = 7\n")?;
    let file = path(&file)?;
    let defaults = offload_rt(&["config"]).await?;
    for (flags, line) in [
        (&["--config", file][..], "count = 7"),
        (&["--config", file], "data_dir = \"/of/the/file\""),
        (&["--config", file, "--workers", "3"], "count = 3"),
        (&["--config", file, "--data-dir", "/of/the/flag"], "data_dir = \"/of/the/flag\""),
        (&["--listen", "127.0.0.1:4321"], "address = \"127.0.0.1:4321\""),
        (&["--broker", "mqtt://plant"], "url = \"mqtt://plant:1883\""),
        (&["--allow-native"], "native = \"native\""),
    ] {
        let printed = offload_rt(&[&["config"], flags].concat()).await?;
        ensure!(printed.status.success(), "{flags:?}: {}", text(&printed.stderr));
        let has = |output: &Output| text(&output.stdout).lines().any(|found| found == line);
        assert!(has(&printed) && !has(&defaults), "{flags:?}: {line}");
    }
    for wrong in
        [&["--listen", "127.0.0.1:1", "--broker", "mqtt://plant"][..], &["--workers", "0"], &["--no-such"]]
    {
        let refused = offload_rt(&[&["serve"], wrong].concat()).await?;
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{wrong:?}");
        assert!(!refused.stderr.is_empty(), "{wrong:?}");
    }
    Ok(())
}

/// What the contract says of the defaults that no test can wait for: retention of 10 minutes, 4 096 requests waiting,
/// 10 s to drain, the host's name.
#[tokio::test]
async fn the_defaults_are_those_of_the_contract() -> Result<()> {
    let printed = text(&offload_rt(&["config"]).await?.stdout);
    for line in [
        "# address = \"127.0.0.1:1883\"",
        "# drain = \"10s\"",
        "# native = \"auto\"",
        "# per_principal = 4096",
        "# retention = \"10min\"",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line} is not there: {printed}");
    }
    let host = format!("# name = \"{}\"", tool("uname", &["-n"]).await?.trim_end());
    assert!(printed.lines().any(|found| found == host), "the host's name: {host}");
    let joined = text(&offload_rt(&["config", "--broker", "mqtt://plant"]).await?.stdout);
    assert!(joined.lines().any(|found| found == "# receive_maximum = 4096"), "{joined}");
    Ok(())
}

/// Without flags or file it works: embedded broker, 127.0.0.1:1883, a data directory of its own. In a network and with
/// a `/var/lib` that nobody else has, the client by its defaults too.
#[tokio::test]
async fn without_flags_or_file_it_works() -> Result<()> {
    let home = TempDir::new()?;
    let home = path(home.path())?;
    let script = "mkfifo $HOME/stdout; $0 serve > $HOME/stdout 2> $HOME/log & exec 3< $HOME/stdout; \
                  read ready <&3; echo $ready; $1 send add --args 5 7; kill -TERM $!; wait $!; echo exit code $?; \
                  ls -d $HOME/.local/state/offload-rt /var/lib/offload-rt 2> $HOME/missing";
    let (gateway, client) = (built::program("offload-rt")?, built::program("offload-client")?);
    let arguments = [
        &["--dev-bind", "/", "/", "--tmpfs", "/var/lib", "--bind", home, home][..],
        // Whatever happens, nothing that was started there outlives it.
        &["--unshare-net", "--unshare-pid", "--proc", "/proc", "--die-with-parent", "--setenv", "HOME", home],
        &["--unsetenv", "XDG_STATE_HOME", "--unsetenv", "OFFLOAD_BROKER"],
        &["sh", "-c", script, path(&gateway)?, path(&client)?],
    ];
    let output =
        run(Path::new("bwrap"), &arguments.concat(), b"").await.context("run `cargo xtask setup`")?;
    let stdout = text(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        lines[..lines.len().min(3)],
        ["listening on mqtt://127.0.0.1:1883", "12", "exit code 0"],
        "{stdout}{}",
        text(&output.stderr)
    );
    assert!(lines.len() == 4 && lines[3].ends_with("/offload-rt"), "one data directory: {stdout}");
    Ok(())
}

#[tokio::test]
async fn the_effective_configuration_can_be_used_as_a_file() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("printed.toml");
    let printed = offload_rt(&["config"]).await?;
    ensure!(printed.status.success(), "{}", text(&printed.stderr));
    std::fs::write(&file, &printed.stdout)?;
    let again = offload_rt(&["config", "--config", path(&file)?]).await?;
    assert_eq!(text(&again.stdout), text(&printed.stdout), "{}", text(&again.stderr));
    // Nothing of this machine is set by it.
    let is_set = |line: &&str| !line.starts_with('#') && line.contains('=');
    assert_eq!(text(&printed.stdout).lines().filter(is_set).count(), 0, "{}", text(&printed.stdout));
    Ok(())
}

/// All errors at once, in the order of the file's lines, whichever command reads it; `config --check` does no more.
#[tokio::test]
async fn a_configuration_is_checked_as_a_whole() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("gateway.toml");
    std::fs::write(
        &file,
        "drain = 5\n[limits]\nfule = 1\nwall = 10s\n[listen]\nmax_packet = \"32MiB\"\nsession_queue_bytes = \"1MiB\"\n",
    )?;
    let file = path(&file)?;
    let data = folder.path().join("data");
    for command in [
        &["config", "--check", file][..],
        &["config", "--config", file],
        &["serve", "--config", file, "--listen", "127.0.0.1:0", "--data-dir", path(&data)?],
        &["doctor", "--config", file],
    ] {
        let refused = offload_rt(command).await?;
        let told = text(&refused.stderr);
        let places = [1, 3, 4, 6].map(|line| format!("error: {file}:{line}:"));
        let lines: Vec<&str> = told.lines().collect();
        assert!(
            lines.len() == 4 && lines.iter().zip(&places).all(|(line, place)| line.starts_with(place)),
            "{told}"
        );
        assert!(
            lines[3].contains("`listen.session_queue_bytes`, 1MiB (line 7); accepted: at most 1MiB, or "),
            "{told}"
        );
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{command:?}");
    }
    assert!(!data.exists(), "nothing was started");
    std::fs::write(file, "[listen]\nmax_packet = \"32MiB\"\n")?;
    let checked = offload_rt(&["config", "--check", file]).await?;
    ended(&checked, 0, &format!("{file}: nothing is wrong\n"), "");
    Ok(())
}

/// What is in the files that a configuration names is checked with it: nothing is started that could not work.
#[tokio::test]
async fn the_files_of_a_configuration_hold_what_they_should() -> Result<()> {
    let folder = TempDir::new()?;
    for keys in ["one", "other"] {
        let made = offload_rt(&["keygen", path(&folder.path().join(keys))?]).await?;
        ensure!(made.status.success(), "{}", text(&made.stderr));
    }
    for (name, holds) in [("passwords", "dev1:secret\n"), ("program.wat", "hello\n"), ("empty", "")] {
        std::fs::write(folder.path().join(name), holds)?;
    }
    let tls = |certificate: &str, key: &str, ca: &str| {
        format!(
            "[tls]\naddress = \"127.0.0.1:0\"\ncertificate = {certificate:?}\nkey = {key:?}\nclient_ca = {ca:?}\n"
        )
    };
    let broker = |files: &str| format!("[broker]\nurl = \"mqtts://127.0.0.1:1\"\n{files}");
    let file = folder.path().join("gateway.toml");
    let (shown, data) = (path(&file)?, folder.path().join("data"));
    for (configuration, place, problem) in [
        (tls("one/server.key", "one/server.key", "one/ca.pem"), "3:15: tls.certificate: ", "no certificate"),
        (tls("one/server.pem", "one/server.pem", "one/ca.pem"), "4:7: tls.key: ", "one/server.pem"),
        (
            tls("one/server.pem", "other/server.key", "one/ca.pem"),
            "4:7: tls.key: ",
            "`tls.certificate` (line 3)",
        ),
        (tls("one/server.pem", "one/server.key", "empty"), "5:13: tls.client_ca: ", "no certificate"),
        (
            "[access]\npasswords = \"passwords\"\n".into(),
            "2:13: access.passwords: ",
            "passwords:1: another kind",
        ),
        ("[modules]\npreload = [\"program.wat\"]\n".into(), "2:11: modules.preload: ", "program.wat: "),
        (
            "[[program]]\nname = \"p\"\nfile = \"program.wat\"\n".into(),
            "3:8: program[0].file: ",
            "expected `(`",
        ),
        (broker("cafile = \"empty\"\n"), "3:10: broker.cafile: ", "no certificate"),
        (
            broker("cafile = \"one/ca.pem\"\ncert = \"one/server.pem\"\nkey = \"other/server.key\"\n"),
            "5:7: broker.key: ",
            "is not the key of the certificate",
        ),
    ] {
        std::fs::write(&file, &configuration)?;
        let start: &[&str] =
            if configuration.contains("[broker]") { &[] } else { &["--listen", "127.0.0.1:0"] };
        for command in [
            &["config", "--check", shown][..],
            &[&["serve", "--config", shown, "--data-dir", path(&data)?], start].concat(),
        ] {
            let refused = offload_rt(command).await?;
            let told = text(&refused.stderr);
            let is_at_its_place = told.starts_with(&format!("error: {shown}:{place}"));
            assert!(is_at_its_place && told.contains(problem), "{configuration}{told}");
            assert_eq!((refused.status.code(), told.lines().count()), (Some(1), 1), "{configuration}{told}");
        }
    }
    assert!(!data.exists(), "nothing was started");
    std::fs::write(&file, tls("one/server.pem", "one/server.key", "one/ca.pem"))?;
    ended(&offload_rt(&["config", "--check", shown]).await?, 0, &format!("{shown}: nothing is wrong\n"), "");
    Ok(())
}

/// What the system refuses is told once, with what to do about it.
#[tokio::test]
async fn an_error_of_the_system_is_told_once_with_a_remedy() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("file");
    std::fs::write(&file, "")?;
    let below = file.join("below");
    let data = folder.path().join("data");
    let elsewhere = ["serve", "--listen", "192.0.2.1:1883", "--allow-anonymous", "--data-dir", path(&data)?];
    let (file, missing) = (path(&file)?, path(folder.path())?.to_owned() + "/missing.toml");
    for (arguments, cause, remedy) in [
        (
            &["serve", "--listen", "127.0.0.1:0", "--data-dir", path(&below)?][..],
            "Not a directory",
            "--data-dir",
        ),
        (&["serve", "--listen", "127.0.0.1:0", "--data-dir", file], "File exists", "--data-dir"),
        (&elsewhere, "Cannot assign requested address", "0.0.0.0"),
        (&["serve", "--config", &missing], "No such file or directory", "offload-rt config > "),
        (&["keygen", path(&below)?], "Not a directory", "cannot make "),
        (&["passwd", path(&below)?, "dev1", "--delete"], "Not a directory", "cannot open "),
        (
            &["passwd", &(missing.clone() + "/users"), "dev1", "--delete"],
            "No such file or directory",
            "in a folder that exists",
        ),
        (&["config", "--check", path(folder.path())?], "Is a directory", "the file in it"),
    ] {
        let refused = offload_rt(arguments).await?;
        let told = text(&refused.stderr);
        assert_eq!(
            (refused.status.code(), told.matches(cause).count()),
            (Some(1), 1),
            "{arguments:?}: {told}"
        );
        assert!(told.contains(remedy), "{told}");
    }
    Ok(())
}

/// Without a home nothing is kept wherever the gateway was started.
#[tokio::test]
async fn a_gateway_without_a_home_wants_to_know_where_its_state_is() -> Result<()> {
    let program = built::program("offload-rt")?;
    let nobody = [
        &["--dev-bind", "/", "/", "--unshare-user", "--uid", "4242", "--unsetenv", "HOME"][..],
        &["--unsetenv", "XDG_STATE_HOME", "--die-with-parent", path(&program)?],
    ];
    let start = async |arguments: &[&str]| {
        run(Path::new("bwrap"), &[&nobody.concat()[..], arguments].concat(), b"")
            .await
            .context("run `cargo xtask setup`")
    };
    let refused = start(&["serve"]).await?;
    let told = "error: data_dir: no default: there is neither $XDG_STATE_HOME nor a home directory; accepted: a folder, or \
                --data-dir DIR\n";
    ended(&refused, 1, "", told);
    ensure!(start(&["config", "--data-dir", "/tmp/state"]).await?.status.success());
    Ok(())
}

/// An address that others can reach is not listened on, so that no native build can come from there.
#[tokio::test]
async fn only_loopback_is_served() -> Result<()> {
    let folder = TempDir::new()?;
    let refused = offload_rt(&["serve", "--listen", "0.0.0.0:0", "--data-dir", path(folder.path())?]).await?;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(!refused.stderr.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_demonstration_comes_out_right() -> Result<()> {
    let demo = offload_rt(&["demo"]).await?;
    assert!(demo.status.success(), "{}{}", text(&demo.stdout), text(&demo.stderr));
    assert!(!demo.stdout.is_empty());
    Ok(())
}

/// The client, and a gateway for it.
struct Sending {
    deployment: Deployment,
}

impl Sending {
    async fn new() -> Result<Sending> {
        Ok(Sending { deployment: Deployment::embedded("").await? })
    }

    async fn send(&self, arguments: &[&str], stdin: &[u8]) -> Result<Output> {
        self.client(&[&["send"], arguments].concat(), stdin).await
    }

    async fn client(&self, arguments: &[&str], stdin: &[u8]) -> Result<Output> {
        let broker = format!("mqtt://{}", self.deployment.address());
        run(&built::program("offload-client")?, &[&["--broker", &broker], arguments].concat(), stdin).await
    }
}

/// Checks exit code, stdout and stderr of a client.
fn ended(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(found, (Some(code), stdout.to_owned(), stderr.to_owned()));
}

/// `FILE` may be `.wasm`, `.wat`; `--stdin -`, `--env K=V`.
#[tokio::test]
async fn the_client_runs_a_wat_file_and_programs_in_every_language() -> Result<()> {
    let sending = Sending::new().await?;
    let wat = built::guest_examples().join("add/add.wat");
    ended(&sending.send(&[path(&wat)?, "--args", "5", "-7"], b"").await?, 0, "-2\n", "");
    let c = built::guest("primes")?;
    ended(&sending.send(&[path(&c)?, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    let rust = built::guest("word-count")?;
    let arguments = ["--stdin", "-", "--env", "IGNORE=a", path(&rust)?];
    ended(&sending.send(&arguments, b"b a b").await?, 0, "2 b\n", "");
    Ok(())
}

/// Everything after `--args` is the guest's, hyphens and all: also what would be the client's own.
#[tokio::test]
async fn everything_after_args_is_the_guests() -> Result<()> {
    let sending = Sending::new().await?;
    let folder = TempDir::new()?;
    let source = folder.path().join("arguments.c");
    std::fs::write(
        &source,
        "#include <stdio.h>\nint main(int c, char **v) { for (int i = 1; i < c; i++) puts(v[i]); }\n",
    )?;
    let theirs = ["--json", "-h", "--", "--args", "a b", "", "-p", "--help", "--fuel"];
    let sent = sending.send(&[&[path(&source)?, "--args"], &theirs[..]].concat(), b"").await?;
    ended(&sent, 0, &format!("{}\n", theirs.join("\n")), "");
    Ok(())
}

/// After the program `send`'s own flags are read up to the first word that is none of them; `-` is a module on stdin.
#[tokio::test]
async fn words_after_the_program_are_the_guests() -> Result<()> {
    let sending = Sending::new().await?;
    ended(&sending.send(&["add", "5", "-7"], b"").await?, 0, "-2\n", "");
    ended(&sending.send(&["add", "--fuel", "1000000", "--", "5", "7"], b"").await?, 0, "12\n", "");
    let unknown = sending.send(&["add", "-x"], b"").await?;
    assert_eq!(unknown.status.code(), Some(125));
    assert!(text(&unknown.stderr).contains("'-- -x'"), "{}", text(&unknown.stderr));
    let module = std::fs::read(built::guest("add")?)?;
    ended(&sending.send(&["-", "20", "3"], &module).await?, 0, "23\n", "");
    Ok(())
}

/// `--stdin FILE|-`: a file, or the command's own.
#[tokio::test]
async fn the_client_reads_stdin_from_a_file() -> Result<()> {
    let sending = Sending::new().await?;
    let folder = TempDir::new()?;
    let file = folder.path().join("numbers");
    std::fs::write(&file, b"from\0a file\xff")?;
    let echo = built::guest("echo")?;
    let sent = sending.send(&["--stdin", path(&file)?, path(&echo)?], b"not this").await?;
    assert_eq!((sent.status.code(), &sent.stdout[..]), (Some(0), &b"from\0a file\xff"[..]));
    let sent = sending.send(&["--stdin", "-", path(&echo)?], b"but this").await?;
    ended(&sent, 0, "but this", "");
    ended(&sending.send(&[path(&echo)?], b"nor this").await?, 0, "", "");
    Ok(())
}

/// `--id/-i` is the reply id, and a connection flag may stand on either side of `send`.
#[tokio::test]
async fn the_clients_id_is_its_reply_id() -> Result<()> {
    let sending = Sending::new().await?;
    let request = built::guest("request")?;
    let request = [path(&request)?, "--args", "reply"];
    let before = sending.client(&[&["-i", "me/too", "send"], &request[..]].concat(), b"").await?;
    ended(&before, 0, "reply: me/too\n", "");
    let after = sending.client(&[&["send", "-i", "you"], &request[..]].concat(), b"").await?;
    ended(&after, 0, "reply: you\n", "");
    Ok(())
}

/// `--broker URL` (environment: `OFFLOAD_BROKER`); flags of host and port go before it.
#[tokio::test]
async fn the_broker_may_be_in_the_environment() -> Result<()> {
    let sending = Sending::new().await?;
    let address = sending.deployment.address();
    let send = async |broker: String, flags: &[&str]| {
        let mut client = Command::new(built::program("offload-client")?);
        client.env("OFFLOAD_BROKER", broker).args(flags).args(["send", "add", "--args", "5", "7"]);
        run_command(client, b"").await
    };
    ended(&send(format!("mqtt://{address}"), &[]).await?, 0, "12\n", "");
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let flags = ["-h", &host, "-p", &port];
    ended(&send("mqtt://nowhere.invalid:1".to_owned(), &flags).await?, 0, "12\n", "");
    let wrong = send("http://nowhere".to_owned(), &[]).await?;
    assert_eq!((wrong.status.code(), text(&wrong.stdout)), (Some(ERROR), String::new()));
    assert!(text(&wrong.stderr).starts_with("error: malformed: "), "{}", text(&wrong.stderr));
    Ok(())
}

/// `--help` has no short form: `-h` is the host, and a command line that is wrong exits 125.
#[tokio::test]
async fn help_has_no_short_form() -> Result<()> {
    let client = built::program("offload-client")?;
    for arguments in [&["--help"][..], &["send", "--help"]] {
        let help = run(&client, arguments, b"").await?;
        assert_eq!((help.status.code(), text(&help.stderr)), (Some(0), String::new()));
        assert!(text(&help.stdout).contains("--host"), "{}", text(&help.stdout));
    }
    for arguments in [&["-h"][..], &["send", "-h"], &["send"], &["send", "add", "--no-such"]] {
        let wrong = run(&client, arguments, b"").await?;
        assert_eq!((wrong.status.code(), text(&wrong.stdout)), (Some(ERROR), String::new()), "{arguments:?}");
        assert!(
            text(&wrong.stderr).starts_with("error: malformed: "),
            "{arguments:?}: {}",
            text(&wrong.stderr)
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_client_runs_a_program_by_its_name() -> Result<()> {
    let sending = Sending::new().await?;
    ended(&sending.send(&["add", "--args", "5", "7"], b"").await?, 0, "12\n", "");
    let unknown = sending.send(&["no-such-program"], b"").await?;
    assert_eq!(unknown.status.code(), Some(ERROR));
    assert!(text(&unknown.stderr).starts_with("error: not-found: "), "{}", text(&unknown.stderr));
    Ok(())
}

/// `sha256:HEX` in place of a file.
#[tokio::test]
async fn the_client_runs_a_module_by_its_digest_once_it_was_sent() -> Result<()> {
    let sending = Sending::new().await?;
    let module = built::guest("primes")?;
    let digest = tool("sha256sum", &[path(&module)?]).await?;
    let digest = format!("sha256:{}", digest.split(' ').next().context("a digest comes first")?);
    let unknown = sending.send(&[&digest, "--args", "--count", "100"], b"").await?;
    assert_eq!(unknown.status.code(), Some(ERROR));
    assert!(text(&unknown.stderr).starts_with("error: not-found: "), "{}", text(&unknown.stderr));
    // The second time it is the client that asks by digest first.
    for _ in 0..2 {
        ended(&sending.send(&[path(&module)?, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    }
    ended(&sending.send(&[&digest, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    Ok(())
}

/// `FILE` may be a C/C++ source; `--makefile FILE`, `--build CMD`.
#[tokio::test]
async fn the_client_has_source_built_as_it_is_told() -> Result<()> {
    let sending = Sending::new().await?;
    let primes = built::guest_examples().join("primes/primes.c");
    ended(&sending.send(&[path(&primes)?, "--args", "--count", "100"], b"").await?, 0, "25\n", "");
    let folder = TempDir::new()?;
    let cpp = folder.path().join("plus.cpp");
    std::fs::write(&cpp, "#include <iostream>\nint main() { std::cout << \"C++\\n\"; }\n")?;
    ended(&sending.send(&[path(&cpp)?], b"").await?, 0, "C++\n", "");
    let source = folder.path().join("answer.c");
    std::fs::write(&source, "int main(void) { return ANSWER; }\n")?;
    let command = ["--build", "gcc -DANSWER=42 <name>.c -o <name>", path(&source)?];
    ended(&sending.send(&command, b"").await?, 42, "", "");
    let makefile = folder.path().join("Makefile");
    std::fs::write(&makefile, "all:\n\tgcc -DANSWER=43 <name>.c -o <name>\n")?;
    let makefile = ["--makefile", path(&makefile)?, path(&source)?];
    ended(&sending.send(&makefile, b"").await?, 43, "", "");
    let undefined = sending.send(&[path(&source)?], b"").await?;
    assert_eq!((undefined.status.code(), text(&undefined.stdout)), (Some(ERROR), String::new()));
    let error = text(&undefined.stderr);
    assert!(error.starts_with("error: build: ") && error.contains("answer.c:1"), "{error}");
    Ok(())
}

/// `FILE` may be a folder with a Makefile; `--target NAME`.
#[tokio::test]
async fn the_client_sends_a_folder() -> Result<()> {
    let sending = Sending::new().await?;
    for project in project::all()? {
        for case in &project.cases {
            let Expected::Exit { code, stdout } = case.expected() else { continue };
            let mut arguments = vec![path(&project.folder)?, "--stdin", "-"];
            arguments.extend(case.target.iter().flat_map(|target| ["--target", target.as_str()]));
            arguments.extend(["--args"].into_iter().chain(case.args.iter().map(String::as_str)));
            let output = sending.send(&arguments, &case.stdin()).await?;
            let found = (output.status.code(), text(&output.stdout));
            assert_eq!(found, (Some(code), text(&stdout)), "{arguments:?}: {}", text(&output.stderr));
        }
    }
    Ok(())
}

/// What the compiler said is printed as it said it, behind its first error.
#[tokio::test]
async fn the_client_prints_what_the_compiler_said() -> Result<()> {
    let sending = Sending::new().await?;
    let folder = TempDir::new()?;
    std::fs::create_dir(folder.path().join("src"))?;
    std::fs::write(folder.path().join("src/main.c"), "int main(void) { return x; }\n")?;
    std::fs::write(folder.path().join("Makefile"), "app: src/main.c\n\tgcc $(CURDIR)/$< -o $@\n")?;
    let wrong = sending.send(&[path(folder.path())?], b"").await?;
    assert_eq!((wrong.status.code(), text(&wrong.stdout)), (Some(ERROR), String::new()));
    let said = "error: build: src/main.c:1:25: error: 'x' undeclared (first use in this function)\n\
                gcc src/main.c -o app\nsrc/main.c: In function 'main':\nsrc/main.c:1:25: error: ";
    assert!(text(&wrong.stderr).starts_with(said), "{}", text(&wrong.stderr));
    Ok(())
}

/// The guest's stdout goes to stdout, its stderr to stderr, its exit code is the command's.
#[tokio::test]
async fn the_client_passes_on_exit_code_and_stderr() -> Result<()> {
    let sending = Sending::new().await?;
    let json_filter = built::guest("json-filter")?;
    let output = sending.send(&["--stdin", "-", path(&json_filter)?, "--args", "/b"], b"{}").await?;
    ended(&output, 2, "", "json-filter: nothing at /b\n");
    let exit_code = built::guest("exit-code")?;
    ended(&sending.send(&[path(&exit_code)?, "--args", "124"], b"").await?, 124, "", "");
    Ok(())
}

/// Errors print `error: <kind>: <message>` on stderr and exit 125, a timeout 124. `--fuel N`, `--memory SIZE`
/// (`64MiB`), `--timeout T` (`2s`, `500ms`).
#[tokio::test]
async fn the_client_tells_errors_and_timeouts() -> Result<()> {
    let sending = Sending::new().await?;
    let trap = sending.send(&[path(&built::guest("trap")?)?], b"").await?;
    assert_eq!(trap.status.code(), Some(ERROR));
    assert!(text(&trap.stderr).starts_with("error: trap: "), "{}", text(&trap.stderr));
    let spin = built::guest("spin")?;
    let fuel = sending.send(&["--fuel", "1000000", path(&spin)?], b"").await?;
    assert_eq!(fuel.status.code(), Some(ERROR));
    assert!(text(&fuel.stderr).starts_with("error: fuel: "), "{}", text(&fuel.stderr));
    for time in ["2s", "1500ms"] {
        let timeout = sending.send(&["--timeout", time, path(&spin)?], b"").await?;
        assert_eq!(timeout.status.code(), Some(TIMEOUT));
        assert!(text(&timeout.stderr).starts_with("error: timeout: "), "{}", text(&timeout.stderr));
    }
    let grow = sending.send(&["--memory", "1MiB", path(&built::guest("grow")?)?], b"").await?;
    assert_eq!(grow.status.code(), Some(ERROR));
    assert!(text(&grow.stderr).starts_with("error: memory: "), "{}", text(&grow.stderr));
    Ok(())
}

/// `--json` tells errors and timeouts from a guest that exits with 125 or 124.
#[tokio::test]
async fn the_client_prints_json() -> Result<()> {
    let sending = Sending::new().await?;
    let good: Value =
        serde_json::from_slice(&sending.send(&["--json", "add", "--args", "1"], b"").await?.stdout)?;
    assert_eq!((&good["status"], &good["exit_code"]), (&"ok".into(), &0.into()), "{good}");
    let trap = sending.send(&["--json", path(&built::guest("trap")?)?], b"").await?;
    let bad: Value = serde_json::from_slice(&trap.stdout)?;
    assert_eq!((&bad["status"], &bad["error"]["kind"]), (&"error".into(), &"trap".into()), "{bad}");
    let exit_code = built::guest("exit-code")?;
    let spin = built::guest("spin")?;
    for (arguments, code, status) in [
        (&[path(&exit_code)?, "--args", "125"][..], ERROR, "exit"),
        (&["no-such-program"], ERROR, "error"),
        (&[path(&exit_code)?, "--args", "124"], TIMEOUT, "exit"),
        (&["--timeout", "500ms", path(&spin)?], TIMEOUT, "error"),
    ] {
        let output = sending.send(&[&["--json"], arguments].concat(), b"").await?;
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!((output.status.code(), &answer["status"]), (Some(code), &status.into()), "{arguments:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_client_says_when_nobody_is_there() -> Result<()> {
    // Bound, so that no other test's gateway gets the port, but never listened on.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let broker = format!("mqtt://{}", socket.local_addr()?);
    let client = built::program("offload-client")?;
    let output = run(&client, &["--broker", &broker, "send", "--timeout", "1s", "add"], b"").await?;
    assert!(matches!(output.status.code(), Some(ERROR | TIMEOUT)), "{output:?}");
    assert!(text(&output.stderr).contains("error: "), "{}", text(&output.stderr));
    Ok(())
}

/// With either version of MQTT.
#[tokio::test]
async fn the_tools_of_mosquitto_are_clients_too() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let port = deployment.address().port().to_string();
    for version in ["mqttv311", "mqttv5"] {
        let (request, result) = (format!("localCode/{version}"), format!("result/{version}"));
        // Subscribes in a session that stays, so that the answer waits for the one who comes for it.
        let session = ["-p", &port, "-V", version, "-i", version, "-c", "-q", "1", "-t", &result];
        let expiry: &[&str] = if version == "mqttv5" { &["-x", "300"] } else { &[] };
        tool("mosquitto_sub", &[&session[..], expiry, &["-E"]].concat()).await?;
        tool("mosquitto_pub", &["-p", &port, "-V", version, "-q", "1", "-t", &request, "-m", "5 7"]).await?;
        let answer = tool("mosquitto_sub", &[&session[..], expiry, &["-C", "1"]].concat()).await?;
        assert_eq!(answer.trim_end(), "12");
        let both = ["-p", &port, "-V", version, "-t", &request, "-e", &result, "-m", "20 22"];
        assert_eq!(tool("mosquitto_rr", &both).await?.trim_end(), "42");
    }
    Ok(())
}

/// What the tool prints; it has to succeed.
async fn tool(name: &str, arguments: &[&str]) -> Result<String> {
    let output = run(Path::new(name), arguments, b"").await.context("run `cargo xtask setup`")?;
    ensure!(output.status.success(), "{name} {arguments:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}
