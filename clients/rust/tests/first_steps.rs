//! What is needed once: a configuration file, completions, the manual, a program to begin with.

mod side;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use offload_client::Code;
use side::{Gateway, Mosquitto, command, exited, output};
use tokio::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_offload-client");

/// The command in a home of its own, as nobody has set anything up there.
fn at_home(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for name in ["OFFLOAD_BROKER", "OFFLOAD_CONFIG", "OFFLOAD_PASSWORD_FILE", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.args(args).env("HOME", home).current_dir(home).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn ran(mut command: Command) -> (i32, String, String) {
    output(command.spawn().unwrap()).await
}

#[tokio::test]
async fn the_configuration_file_says_where_and_who() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let home = tempfile::tempdir().unwrap();
    let port = broker.port;
    // Where nobody answers, so that what wins can be told.
    let nowhere = "mqtt://127.0.0.1:1";
    let folder = home.path().join(".config/offload");
    fs::create_dir_all(&folder).unwrap();
    fs::write(home.path().join("password"), "secret\n").unwrap();
    let usual = format!(
        "port = {port}\nid = 'of-the-file'\n[gateway.plant]\nbroker = 'mqtt://127.0.0.1:{port}'\nid = 'plant'\n"
    );
    fs::write(folder.join("client.toml"), usual).unwrap();
    let other = format!(
        "broker = 'mqtt://127.0.0.1:{port}'\nid = 'of-the-other'\nusername = 'me'\npassword-file = 'password'\n"
    );
    fs::write(home.path().join("other.toml"), other).unwrap();
    let url = broker.url();
    let url = url.as_str();
    let in_xdg = home.path().join("xdg/offload");
    fs::create_dir_all(&in_xdg).unwrap();
    fs::write(in_xdg.join("client.toml"), format!("port = {port}\nid = 'of-xdg'\n")).unwrap();
    let xdg = home.path().join("xdg");
    let xdg = xdg.to_str().unwrap();
    let unset: &[(&str, &str)] = &[];
    for (line, environment, id) in [
        ("send add", unset, "of-the-file"),
        ("send add", &[("OFFLOAD_CONFIG", "")], "of-the-file"),
        ("send add", &[("OFFLOAD_CONFIG", "other.toml")], "of-the-other"),
        ("--config other.toml send add", &[("OFFLOAD_CONFIG", "/no/such")], "of-the-other"),
        ("send add", &[("XDG_CONFIG_HOME", xdg)], "of-xdg"),
        ("send add -i of-the-flag", unset, "of-the-flag"),
        ("--gateway plant send add", &[("OFFLOAD_BROKER", nowhere)], "plant"),
        ("send add", &[("OFFLOAD_BROKER", url)], "of-the-file"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = at_home(home.path(), &words);
        command.envs(environment.iter().copied());
        let child = command.spawn().unwrap();
        let (delivery, said) = tokio::join!(
            async {
                let delivery = gateway.next().await;
                gateway.answer(&delivery, exited(0, "12\n", "")).await;
                delivery
            },
            output(child)
        );
        assert_eq!(said, (0, "12\n".into(), String::new()), "{line} {environment:?}");
        assert_eq!(delivery.request.code, Code::Program("add".into()));
        assert!(
            delivery.topic().ends_with(&format!("/{id}")),
            "{line} {environment:?}: {}",
            delivery.topic()
        );
    }
    // A URL, flags for another place, and what is wrong.
    let mut lost = at_home(home.path(), &["send", "add"]);
    lost.env("OFFLOAD_BROKER", nowhere);
    assert_eq!(ran(lost).await.0, 125);
    fs::write(home.path().join("bad.toml"), "\n\nhots = 'plant'\n").unwrap();
    for (line, told) in [
        ("--config bad.toml send add", &["bad.toml:3: ", "hots", "host"][..]),
        ("--config /no/such send add", &["/no/such: "]),
        ("--gateway palnt send add", &["--gateway palnt", "plant"]),
        ("-P x -h 127.0.0.1 send add", &["--pw", "--username"]),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let (code, printed, error) = ran(at_home(home.path(), &words)).await;
        assert_eq!((code, printed.as_str()), (125, ""), "{line}");
        assert!(error.starts_with("error: malformed: ") && error.lines().count() == 1, "{line}: {error}");
        assert!(told.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
}

/// A broker that lets in alice alone, whose password is `secret word`; its file is in this folder.
async fn alices_broker(folder: &Path) -> Mosquitto {
    let passwords = folder.join("passwords");
    let mut add = Command::new("mosquitto_passwd");
    add.args(["-b", "-c"]).arg(&passwords).args(["alice", "secret word"]);
    assert!(add.status().await.unwrap().success());
    let lines = format!("user root\nallow_anonymous false\npassword_file {}", passwords.display());
    Mosquitto::start_with(&lines).await
}

#[tokio::test]
async fn what_a_file_has_for_one_host_is_sent_to_no_other() {
    let home = tempfile::tempdir().unwrap();
    let broker = alices_broker(home.path()).await;
    let port = broker.port.to_string();
    let who = "username = 'alice'\npw = 'secret word'\n";
    for (place, kind) in
        [("host = '127.0.0.1'\n", "not-found"), ("", "not-found"), ("host = 'plant'\n", "unauthorized")]
    {
        let file = home.path().join("client.toml");
        fs::write(&file, format!("{place}{who}")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let flags = ["--config", "client.toml", "-h", "127.0.0.1", "-p", &port, "gateways", "--wait", "0s"];
        let (_, _, error) = ran(at_home(home.path(), &flags)).await;
        assert!(error.starts_with(&format!("error: {kind}: ")), "{place}{error}");
    }
}

#[tokio::test]
async fn a_password_in_a_file_lets_its_user_in() {
    let home = tempfile::tempdir().unwrap();
    let broker = alices_broker(home.path()).await;
    let (password, wrong) = (home.path().join("password"), home.path().join("wrong"));
    fs::write(&password, "secret word\n").unwrap();
    fs::write(&wrong, "secret word \n").unwrap();
    let url = broker.url();
    let gateways = |file: &Path| {
        let mut gateways = command(&url, &["-u", "alice", "gateways", "--wait", "0s"]);
        gateways.env("OFFLOAD_PASSWORD_FILE", file);
        gateways
    };
    // Let in, and nobody is there; else the broker's refusal.
    assert!(ran(gateways(&password)).await.2.starts_with("error: not-found: "));
    assert!(ran(gateways(&wrong)).await.2.starts_with("error: unauthorized: "));
    let by_flag = ["-u", "alice", "--password-file", password.to_str().unwrap(), "gateways", "--wait", "0s"];
    assert!(ran(command(&url, &by_flag)).await.2.starts_with("error: not-found: "));
    // In the configuration file itself, which others can read.
    let configuration = home.path().join("client.toml");
    fs::write(&configuration, "username = 'alice'\npw = 'secret word'\n").unwrap();
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o644)).unwrap();
    let mut open = command(&url, &["gateways", "--wait", "0s"]);
    open.env("OFFLOAD_CONFIG", &configuration);
    let (_, _, error) = ran(open).await;
    assert!(error.starts_with("warning: ") && error.contains("chmod 600"), "{error}");
    assert!(error.contains("\nerror: not-found: "), "{error}");
}

/// As bash has it: the words so far, of which the last one is completed.
async fn completed(home: &Path, broker: &str, words: &[&str]) -> Vec<String> {
    let script = "source <(offload-client completions bash)\n\
        COMP_WORDS=(offload-client \"$@\") COMP_CWORD=$# COMP_TYPE=9\n\
        completer=$(complete -p offload-client | sed 's/.* -F \\([^ ]*\\) .*/\\1/')\n\
        $completer offload-client \"${!#}\" ''\n\
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let folder = Path::new(PROGRAM).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder.to_owned()].into_iter().chain(std::env::split_paths(&path)));
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"]).args(words).kill_on_drop(true).current_dir(home);
    bash.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    bash.env("PATH", path.unwrap())
        .env("OFFLOAD_BROKER", broker)
        .env("OFFLOAD_CONFIG", home.join("client.toml"));
    let (code, printed, error) = ran(bash).await;
    assert_eq!((code, error.as_str()), (0, ""), "{words:?}");
    printed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_commands_flags_files_programs_and_gateways() {
    let broker = Mosquitto::start().await;
    let document =
        r#"{"name": "box", "state": "online", "capabilities": {"programs": ["add", "average", "sort"]}}"#;
    let status = ["-r", "-t", "gateway/box/status", "-m", document];
    let port = broker.port.to_string();
    let published = Command::new("mosquitto_pub").args(["-p", &port]).args(status).status().await;
    assert!(published.unwrap().success());
    let home = tempfile::tempdir().unwrap();
    for file in ["average.wasm", "numbers.txt"] {
        fs::write(home.path().join(file), "").unwrap();
    }
    fs::write(home.path().join("client.toml"), "[gateway.plant]\nhost = 'a'\n[gateway.place]\nhost = 'b'\n")
        .unwrap();
    let url = broker.url();
    for (line, expected) in [
        (&["se"][..], &["send"][..]),
        (&["send", "add", "--std"], &["--stdin"]),
        (&["send", "--stdin", "nu"], &["numbers.txt"]),
        (&["send", "av"], &["average", "average.wasm"]),
        (&["-i", "me", "bench", "so"], &["sort"]),
        (&["send", "./av"], &["./average.wasm"]),
        (&["--gateway", "pla"], &["place", "plant"]),
        (&["-V", ""], &["3.1.1", "5"]),
        (&["new", "--lang", "z"], &["zig"]),
        (&["completions", "fi"], &["fish"]),
    ] {
        let mut found = completed(home.path(), &url, line).await;
        found.sort();
        assert_eq!(found, expected, "{line:?}");
    }
    // Where nobody is, files are found all the same.
    assert_eq!(completed(home.path(), "mqtt://127.0.0.1:1", &["send", "av"]).await, ["average.wasm"]);
}

#[tokio::test]
async fn every_shell_gets_a_script() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, script, error) = ran(at_home(home.path(), &["completions", shell])).await;
        assert_eq!((code, error.as_str()), (0, ""), "{shell}");
        assert!(
            script.contains("OFFLOAD_COMPLETE") && script.contains("offload-client"),
            "{shell}: {script}"
        );
    }
    let (code, printed, error) = ran(at_home(home.path(), &["completions", "tcsh"])).await;
    assert_eq!((code, printed.as_str()), (125, ""));
    assert!(error.starts_with("error: malformed: ") && error.contains("zsh"), "{error}");
}

/// A page for each command, in which mandoc finds no mistake.
#[tokio::test]
async fn the_manual_has_a_page_for_each_command() {
    let home = tempfile::tempdir().unwrap();
    let (code, page, _) = ran(at_home(home.path(), &["man"])).await;
    assert_eq!(code, 0);
    assert_eq!(ran(at_home(home.path(), &["man", "share/man1"])).await, (0, String::new(), String::new()));
    let folder = home.path().join("share/man1");
    assert_eq!(fs::read_to_string(folder.join("offload-client.1")).unwrap(), page);
    let commands = ["send", "bench", "gateways", "console", "new", "completions", "man"];
    let pages: Vec<_> =
        commands.iter().map(|command| folder.join(format!("offload-client-{command}.1"))).collect();
    for page in pages.iter().chain([&folder.join("offload-client.1")]) {
        let mut lint = Command::new("mandoc");
        lint.args(["-T", "lint", "-W", "warning"]).arg(page).stdout(Stdio::piped());
        let (code, found, _) = ran(lint).await;
        assert_eq!((code, found.as_str()), (0, ""), "{}", page.display());
        let text = fs::read_to_string(page).unwrap();
        for heading in ["NAME", "SYNOPSIS", "EXAMPLES", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES"] {
            assert!(text.contains(&format!("\n.SH {heading}\n")), "{}: {heading}: {text}", page.display());
        }
    }
}

#[tokio::test]
async fn a_new_program_is_made_once_and_says_what_its_build_lacks() {
    let home = tempfile::tempdir().unwrap();
    let bare = home.path().join("bin");
    fs::create_dir(&bare).unwrap();
    // A machine without any compiler.
    for tool in ["sh", "dirname"] {
        let found = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(tool));
        std::os::unix::fs::symlink(found.iter().find(|path| path.exists()).unwrap(), bare.join(tool))
            .unwrap();
    }
    for (lang, files) in [
        ("rust", &["Cargo.toml", "src/main.rs"][..]),
        ("c", &["main.c"]),
        ("zig", &["main.zig"]),
        ("go", &["go.mod", "main.go"]),
        ("python", &["app.py", "wit/world.wit"]),
        ("javascript", &["app.js", "package.json", "wit/world.wit"]),
    ] {
        let name = format!("my-{lang}");
        let mut new = at_home(home.path(), &["new", "--lang", lang, &name]);
        new.env("PATH", &bare);
        let (code, printed, error) = ran(new).await;
        assert_eq!(code, 0, "{lang}: {error}");
        assert!(
            error.starts_with("missing: ") && printed.contains(&format!("sh {name}/build.sh")),
            "{lang}: {printed}{error}"
        );
        for file in files.iter().chain(&["README.md", "build.sh", "test.sh", ".gitignore"]) {
            assert!(home.path().join(&name).join(file).is_file(), "{lang}: {file}");
        }
        fs::write(home.path().join(&name).join("README.md"), "mine").unwrap();
        let (code, printed, error) = ran(at_home(home.path(), &["new", "--lang", lang, &name])).await;
        assert_eq!((code, printed.as_str()), (125, ""), "{lang}");
        assert!(error.contains(&name) && error.contains("left as it is"), "{lang}: {error}");
        assert_eq!(fs::read_to_string(home.path().join(&name).join("README.md")).unwrap(), "mine");
    }
    for (line, told) in [
        (&["new", "--lang", "cobol", "x"][..], &["rust", "c", "zig", "go", "python", "javascript"][..]),
        (&["new", "x"], &["--lang"]),
        (&["new", "--lang", "c", "a b"], &["a b", "letters"]),
        (&["new", "--lang", "c", ".."], &["letters"]),
        (&["new", "--lang", "rust", "build"], &["cargo"]),
    ] {
        let (code, printed, error) = ran(at_home(home.path(), line)).await;
        assert_eq!((code, printed.as_str()), (125, ""), "{line:?}");
        assert!(error.starts_with("error: malformed: "), "{line:?}: {error}");
        assert!(told.iter().all(|part| error.contains(part)), "{line:?}: {error}");
    }
    assert!(!home.path().join("x").exists());
}
