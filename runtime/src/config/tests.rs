use super::*;

/// The refusal of `text` as the user reads it, in a folder that holds `add.wat`.
fn refusal(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("add.wat"), "(module)").unwrap();
    let file = folder.path().join("offload.toml");
    std::fs::write(&file, text).unwrap();
    let error = Config::load(&file).expect_err(text).to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn defaults_are_valid() {
    Config::default().validate().unwrap();
    assert_eq!(Config::parse("", Path::new("")).unwrap(), Config::default());
}

#[test]
fn the_commented_defaults_parse_back() {
    let text = Config::default().to_commented_toml();
    assert_eq!(Config::parse(&text, Path::new("")).expect(&text), Config::default());
    for line in text.lines().filter(|line| !line.starts_with('#') && line.contains('=')) {
        let key = line.split(' ').next().unwrap();
        assert!(text.lines().all(|line| line.len() <= 120), "{key}");
    }
}

#[test]
fn every_key_is_documented_and_set_or_shown() {
    for section in Config::schema() {
        assert!(!section.doc.is_empty(), "{}", section.path);
        for key in section.keys {
            assert!(!key.doc.is_empty() && key.in_range, "{}.{}", section.path, key.name);
        }
    }
}

#[test]
fn a_full_configuration_parses_back() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("add.wat"), "(module)").unwrap();
    std::fs::write(folder.path().join("sort.wasm"), "\0asm").unwrap();
    let text = r##"
        name = "press-4"
        data_dir = "state"
        drain = "1500ms"
        native = "compare"
        listen = { address = "[::1]:0", max_packet = 4096 }
        [broker]
        url = "mqtt://plant.example"
        protocol = "3.1.1"
        username = "gateway \"4\""
        password_file = "secret"
        [workers]
        slot_share = 1
        slice = "250us"
        [[access.rule]]
        users = ["line/#"]
        native = "wasm"
        [[program]]
        name = "add"
        file = "add.wat"
        default = true
        [[program]]
        name = "sort"
        file = "sort.wasm"
        [answers]
        response_topics = ["plant/+/answers", "lab/#"]
        [[answers.max]]
        topic = "result/arduino0"
        bytes = "256B"
    "##;
    let config = Config::parse(text, folder.path()).unwrap();
    assert_eq!(config.data_dir, folder.path().join("state"));
    assert_eq!(config.program[1].file, folder.path().join("sort.wasm"));
    assert_eq!(config.listen.max_packet, ByteSize::kib(4));
    assert_eq!((config.native, config.access.rule[0].native), (Native::Compare, Some(Native::Wasm)));
    let printed = config.to_commented_toml();
    assert_eq!(Config::parse(&printed, Path::new("/elsewhere")).expect(&printed), config);
}

#[test]
fn refusals_say_where_what_and_what_else() {
    for (text, expected) in [
        ("drain = ", "offload.toml:1:9: string values must be quoted, expected literal string"),
        (
            "\n[limits]\nfule = 5",
            "offload.toml:3:1: limits.fule: unknown key; did you mean `fuel`?; accepted: fuel, cpu, ",
        ),
        (
            "[limit]\nfuel = 5",
            "offload.toml:1:2: limit: unknown table; did you mean `limits`?; accepted: name, data_dir",
        ),
        ("[listen]\nfrobnicate = 5", "offload.toml:2:1: listen.frobnicate: unknown key; accepted: address, "),
        (
            "[[answers.max]]\ntopics = 5",
            "offload.toml:2:1: answers.max[0].topics: unknown key; did you mean `topic`?",
        ),
        (
            "[limits]\ncpu = \"10MiB\"",
            "offload.toml:2:7: limits.cpu: \"10MiB\" has a wrong unit: \"MiB\" is no unit of time; accepted: a time (a whole number of ns, us, ms, s, min or h), 1ms to 24h",
        ),
        (
            "[limits]\ncpu = 10",
            "offload.toml:2:7: limits.cpu: invalid type: integer `10`, expected a time such as \"10s\" (a plain number has no unit); accepted: a time",
        ),
        (
            "[limits]\n  memory = \"5GiB\"",
            "offload.toml:2:12: limits.memory: \"5GiB\" is out of range; accepted: a size (a whole number of B, KB, KiB, MB, MiB, GB or GiB), 64KiB to 4GiB",
        ),
        (
            "[limits]\nmemory = \"100KB\"",
            "offload.toml:2:10: limits.memory: 100KB is no whole number of pages; accepted: a multiple of 64KiB",
        ),
        (
            "[limits]\nargs = -1",
            "offload.toml:2:8: limits.args: invalid value: integer `-1`, expected usize; accepted: an integer, 0 to 65536",
        ),
        (
            "[workers]\ncount = 0",
            "offload.toml:2:9: workers.count: 0 is out of range; accepted: an integer, 1 to 1024",
        ),
        (
            "workers = 3",
            "offload.toml:1:11: workers: invalid type: integer `3`, expected struct Workers; accepted: [workers]",
        ),
        (
            "[program]\nname = \"a\"",
            "offload.toml:1:1: program: invalid type: map, expected a sequence; accepted: [[program]]",
        ),
        (
            "[queue]\ntotal = 10",
            "offload.toml:2:1: queue.per_principal: 4096 is more than queue.total; accepted: at most queue.total, 10",
        ),
        (
            "[broker]\nreconnect_min = \"40s\"",
            "offload.toml:2:17: broker.reconnect_min: 40s is more than reconnect_max; accepted: at most 30s",
        ),
        (
            "[broker]\nprotocol = \"4\"",
            "offload.toml:2:12: broker.protocol: unknown variant `4`, expected one of `auto`, `5`, `3.1.1`; accepted: \"auto\"",
        ),
        (
            "[broker]\nurl = \"http://x\"",
            "offload.toml:2:7: broker.url: http:// is no kind of broker that can be joined; accepted: mqtt://HOST",
        ),
        ("name = \"a/b\"", "offload.toml:1:8: name: \"a/b\" is no gateway name; accepted: 1 to 64 of"),
        (
            "[[program]]\nname = \"a b\"",
            "offload.toml:2:8: program[0].name: \"a b\" is no name of a program; accepted: 1 to 64 of",
        ),
        (
            "[[program]]\nname = \"a\"",
            "offload.toml:2:1: program[0].file: the program has no file; accepted: a `.wasm` or `.wat` file",
        ),
        (
            "[[program]]\nname = \"a\"\nfile = \"b.wasm\"",
            "offload.toml:3:8: program[0].file: b.wasm: No such file or directory",
        ),
        (
            "[[program]]\nname = \"a\"\nfile = \"b.c\"",
            "offload.toml:3:8: program[0].file: b.c is no such file by its name; accepted: a `.wasm`",
        ),
        (
            "[[program]]\nname = \"a\"\nfile = \"add.wat\"\n[[program]]\nname = \"a\"\nfile = \"add.wat\"",
            "offload.toml:5:8: program[1].name: there are two programs called `a`; accepted: a name of its own",
        ),
        (
            "[[program]]\nname = \"a\"\nfile = \"add.wat\"\ndefault = true\n[[program]]\nname = \"b\"\nfile = \"add.wat\"\ndefault = true",
            "offload.toml:8:11: program[1].default: `a` is the default program already; accepted: true for one program at most",
        ),
        (
            "[answers]\nresponse_topics = [\"a\", \"#/b\"]",
            "offload.toml:2:19: answers.response_topics: \"#/b\" is no topic filter; accepted: a list of topic filters",
        ),
        (
            "[[answers.max]]\nbytes = \"1KiB\"",
            "offload.toml:2:1: answers.max[0].topic: the topic is missing; accepted: a topic filter",
        ),
    ] {
        let actual = refusal(text);
        assert!(actual.starts_with(expected), "\n   text: {text:?}\n actual: {actual}\nexpected: {expected}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    assert!(Config::load(&missing).unwrap_err().to_string().contains("missing.toml"));
    let huge = folder.path().join("huge.toml");
    std::fs::File::create(&huge).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    assert!(matches!(Config::load(&huge), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn values_changed_in_code_are_validated_too() {
    let mut config = Config::default();
    config.workers.count = 0;
    assert_eq!(config.validate().unwrap_err().key, "workers.count");
}

/// Programs that print a line, as common toolchains make them: Go 1.19 with `net/http`, componentize-py 0.25 and
/// ComponentizeJS 0.23. Seconds are of a core of a server; a small board takes four times as long.
#[test]
fn what_common_toolchains_make_is_within_the_defaults() {
    let Config { compiler, limits, listen, .. } = Config::default();
    assert!(compiler.data_segments >= 44_221, "Go");
    assert!(compiler.imports >= 2_486, "Python");
    for (language, bytes, artifact, seconds) in
        [("Python", 18_422_534, 39_850_216, 9.6), ("JavaScript", 13_904_975, 44_646_112, 11.7)]
    {
        assert!(limits.module.bytes() >= bytes, "{language}");
        // In JSON it is in base64.
        assert!(listen.max_packet.bytes() >= bytes / 3 * 4 + 4_096, "{language}");
        assert!(compiler.max_artifact.bytes() >= artifact, "{language}");
        assert!(compiler.cpu.duration().as_secs_f64() >= 4.0 * seconds, "{language}");
        assert!(compiler.wall > compiler.cpu, "{language}");
    }
}
