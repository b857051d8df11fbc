//! Configurations as files say them: what is read, what follows from it, and what is refused with which words.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::Path;

/// What a file in this folder says.
fn parse(text: &str, folder: &Path) -> Result<Finished, ConfigError> {
    Draft::parse(&folder.join("offload.toml"), text.to_owned()).finish()
}

/// The configuration of `text`, which names no files.
fn config(text: &str) -> Config {
    parse(text, Path::new("")).expect(text).config
}

/// All refusals of `text` as the user reads them, in a folder that holds `add.wat`.
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
    let mut settled = Config::default();
    settled.settle().unwrap();
    assert_eq!(config(""), settled);
}

#[test]
fn what_is_not_set_is_printed_as_a_comment_with_its_value() {
    let printed = Config::default().to_commented_toml(&Given::default());
    let live: Vec<&str> =
        printed.lines().filter(|line| !line.starts_with('#') && line.contains('=')).collect();
    assert_eq!(live, [""; 0]);
    for line in ["# drain = \"10s\"", "# per_principal = 4096", "# slots =", "[limits]", "# [tls]"] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    assert!(printed.lines().all(|line| line.len() <= 120), "{printed}");
    assert_eq!(config(&printed), config(""));
    // What was set stays set, the default too.
    let text = "[listen]\nmax_packet = \"32MiB\"\n[limits]\nwall = \"30s\"\n";
    let finished = parse(text, Path::new("")).unwrap();
    let printed = finished.config.to_commented_toml(&finished.given);
    for line in ["max_packet = \"32MiB\"", "wall = \"30s\"", "# session_queue_bytes = \"32MiB\""] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    assert_eq!(parse(&printed, Path::new("")).unwrap(), finished);
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

/// Every kind of table and value, in a folder that holds `add.wat`, `sort.wasm` and `secret`.
const FULL: &str = r##"
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

#[test]
fn a_full_configuration_parses_back() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("add.wat"), "(module)").unwrap();
    std::fs::write(folder.path().join("sort.wasm"), "\0asm").unwrap();
    std::fs::write(folder.path().join("secret"), "word").unwrap();
    let finished = parse(FULL, folder.path()).unwrap();
    let config = &finished.config;
    assert_eq!(config.data_dir, folder.path().join("state"));
    assert_eq!(config.program[1].file, folder.path().join("sort.wasm"));
    assert_eq!(config.listen.max_packet, ByteSize::kib(4));
    assert_eq!((config.native, config.access.rule[0].native), (NativeMode::Compare, Some(NativeMode::Wasm)));
    let printed = config.to_commented_toml(&finished.given);
    assert_eq!(parse(&printed, Path::new("/elsewhere")).expect(&printed), finished);
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
            "offload.toml:2:7: limits.cpu: \"10MiB\" has a wrong unit: \"MiB\" is no unit of time; accepted: a time \
             (a whole number of ns, us, ms, s, min or h), 1ms to 24h",
        ),
        (
            "[limits]\ncpu = 10",
            "offload.toml:2:7: limits.cpu: 10 is an integer; accepted: a time (a whole number of ns, us, ms, s, min \
             or h)",
        ),
        (
            "[limits]\n  memory = \"5GiB\"",
            "offload.toml:2:12: limits.memory: \"5GiB\" is out of range; accepted: a size (a whole number of B, KB, \
             KiB, MB, MiB, GB or GiB), 64KiB to 4GiB",
        ),
        (
            "[limits]\nmemory = \"100KB\"",
            "offload.toml:2:10: limits.memory: 100KB is no whole number of pages; accepted: a multiple of 64KiB",
        ),
        (
            "[limits]\nargs = -1",
            "offload.toml:2:8: limits.args: -1 is out of range; accepted: an integer, 0 to 65536",
        ),
        (
            "[workers]\ncount = 0",
            "offload.toml:2:9: workers.count: 0 is out of range; accepted: an integer, 1 to 1024",
        ),
        ("workers = 3", "offload.toml:1:11: workers: 3 is an integer; accepted: [workers]"),
        ("[program]\nname = \"a\"", "offload.toml:1:1: program: [program] is a table; accepted: [[program]]"),
        (
            "[queue]\ntotal = 10\nper_principal = 20",
            "offload.toml:3:17: queue.per_principal: 20 is more than `queue.total`, 10 (line 2); accepted: at most \
             10, or \
             `queue.total` of 20 or more",
        ),
        (
            "[broker]\nreconnect_min = \"40s\"\nreconnect_max = \"30s\"",
            "offload.toml:2:17: broker.reconnect_min: 40s is more than `broker.reconnect_max`, 30s (line 3); \
             accepted: at \
             most 30s, or `broker.reconnect_max` of 40s or more",
        ),
        (
            "[broker]\nprotocol = \"4\"",
            "offload.toml:2:12: broker.protocol: unknown value \"4\"; accepted: \"auto\" (5, else 3.1.1)",
        ),
        (
            "[broker]\nurl = \"http://x\"",
            "offload.toml:2:7: broker.url: http:// is no scheme of a broker; accepted: mqtt://HOST",
        ),
        ("name = \"a/b\"", "offload.toml:1:8: name: \"a/b\" is no gateway name; accepted: 1 to 64 of"),
        (
            "[[program]]\nname = \"a b\"\nfile = \"add.wat\"",
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
            "offload.toml:3:8: program[0].file: b.c has another ending; accepted: a `.wasm`",
        ),
        (
            "[[program]]\nname = \"a\"\nfile = \"add.wat\"\n[[program]]\nname = \"a\"\nfile = \"add.wat\"",
            "offload.toml:5:8: program[1].name: there are two programs called `a`; accepted: a name of its own",
        ),
        (
            "[[program]]\nname = \"a\"\nfile = \"add.wat\"\ndefault = true\n[[program]]\nname = \"b\"\nfile = \
             \"add.wat\"\ndefault = true",
            "offload.toml:8:11: program[1].default: `a` is the default program already (line 4); accepted: true for \
             one program at most",
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
fn values_changed_in_code_are_completed_and_checked_too() {
    let mut config = Config::default();
    config.listen.max_packet = ByteSize::mib(32);
    config.settle().unwrap();
    assert_eq!(config.listen.session_queue_bytes, ByteSize::mib(32));
    config.settle().expect("what was derived fits");
    config.workers.count = 0;
    assert_eq!(config.settle().unwrap_err().0[0].key, "workers.count");
}

#[test]
fn all_errors_are_told_in_the_order_of_their_lines() {
    let text = "drain = 5\nnme = \"a\"\n[queue]\ntotal = 5\nper_principal = 9\nbytes_total = \"1MiB\"\n[limits]\n\
                memory = \"100KB\"\nwall = 64MiB\nfuel = 0\nfule = 1\n[limit]\n\
                cpu = \"1s\"\n[workers]\ncount = \"two\"\n";
    let told = refusal(text);
    let places: Vec<&str> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = ["1:9", "2:1", "5:17", "8:10", "9:8", "10:8", "11:1", "12:2", "15:9"];
    assert_eq!(places, expected.map(|place| format!("offload.toml:{place}")), "{told}");
    let mut many = String::new();
    for number in 0..1_000 {
        many += &format!("unknown{number} = 1\n");
    }
    assert_eq!(refusal(&many).lines().count(), MAX_REFUSALS);
}

/// Serde takes a list for a table whose values stand in order.
#[test]
fn a_list_is_no_table() {
    for (text, told) in [
        ("keys = []", "offload.toml:1:8: keys: the value is a list; accepted: a table, `[keys]`"),
        (
            "[access]\nrule = [[]]",
            "offload.toml:2:8: access.rule: the list holds what is no table; accepted: tables, `[[access.rule]]`",
        ),
        ("queue = [5]", "offload.toml:1:9: queue: the value is a list; accepted: a table, `[queue]`"),
        (
            "network = [{ gate = \"north\" }]",
            "offload.toml:1:11: network: the value is a list; accepted: a table, `[network]`",
        ),
        (
            "program = [1]",
            "offload.toml:1:11: program: the list holds what is no table; accepted: tables, `[[program]]`",
        ),
    ] {
        assert_eq!(refusal(text), told);
    }
}

#[test]
fn what_follows_from_an_error_is_no_other_one() {
    for (text, key) in [
        ("[queue]\ntotal = \"10\"\nper_principal = 20000", "queue.total"),
        ("[[program]]\nnam = \"a\"\nfile = \"add.wat\"", "program[0].nam"),
        ("[[program]]\nname = 5\nfile = \"add.wat\"", "program[0].name"),
        ("[tls]\ncertificate = 5\nkey = \"add.wat\"", "tls.certificate"),
        ("workers = 3", "workers"),
        ("[queue]\nper_principal = 0", "queue.per_principal"),
    ] {
        let told = refusal(text);
        assert!(told.lines().count() == 1 && told.contains(&format!(": {key}: ")), "{told}");
    }
}

#[test]
fn a_table_that_a_flag_makes_useless_is_printed_as_a_comment() {
    let mut draft = Draft::parse(Path::new("offload.toml"), "[broker]\nkeep_alive = \"20s\"\n".to_owned());
    draft.set("listen.address", |config| config.broker = None);
    let finished = draft.finish().unwrap();
    let printed = finished.config.to_commented_toml(&finished.given);
    assert!(printed.contains("# [broker]") && printed.contains("# keep_alive = "), "{printed}");
    assert_eq!(config(&printed), finished.config);
}

#[test]
fn tables_that_another_broker_leaves_without_effect_are_named() {
    let ignored = |text: &str| parse(text, Path::new("")).unwrap().ignored_tables().collect::<Vec<_>>();
    let embedded = "[listen]\nmax_packet = \"1MiB\"\n[watchdog]\nenabled = false\n";
    let broker = "[broker]\nurl = \"mqtt://a\"\n";
    assert_eq!(ignored(&format!("{embedded}{broker}")), ["listen", "watchdog"]);
    assert_eq!(ignored(embedded), [""; 0]);
    assert_eq!(ignored(broker), [""; 0]);
}

#[test]
fn a_flag_goes_before_what_the_file_says() {
    let mut draft = Draft::parse(Path::new("offload.toml"), "[workers]\ncount = \"two\"\n".to_owned());
    draft.set("workers.count", |config| config.workers.count = 3);
    let finished = draft.finish().unwrap();
    assert!(finished.config.workers.count == 3 && finished.given.has("workers.count"));
    let mut draft = Draft::parse(Path::new("offload.toml"), "[workers]\ncount = 2\n".to_owned());
    draft.set("workers.count", |config| config.workers.count = 0);
    let told = draft.finish().unwrap_err().to_string();
    assert!(told.starts_with("workers.count: 0 is out of range; "), "no line is wrong: {told}");
}

/// Of two values that belong together each goes alone: the other one follows. Both are refused where they contradict
/// each other, at the place of the first, with the line of the second.
#[test]
fn of_two_values_one_follows_and_two_have_to_fit() {
    for (low, high) in [
        ("queue.per_principal = 20000", "queue.total = 10"),
        ("queue.bytes_per_principal = \"1GiB\"", "queue.bytes_total = \"2MiB\""),
        ("limits.module = \"256MiB\"", "queue.bytes_per_principal = \"1MiB\""),
        ("limits.source = \"64MiB\"", "queue.bytes_per_principal = \"1MiB\""),
        ("limits.stdin = \"256MiB\"", "queue.bytes_per_principal = \"1MiB\""),
        ("limits.module = \"256MiB\"", "queue.bytes_total = \"1MiB\""),
        ("listen.max_packet = \"256MiB\"", "listen.session_queue_bytes = \"1KiB\""),
        ("listen.max_packet = \"256MiB\"", "listen.max_input = \"1MiB\""),
        ("listen.max_input_per_user = \"64GiB\"", "listen.max_input = \"1MiB\""),
        ("broker.reconnect_min = \"60s\"", "broker.reconnect_max = \"10ms\""),
        ("modules.per_principal = \"64GiB\"", "modules.total = \"1MiB\""),
        ("compiler.max_artifact = \"1GiB\"", "compiler.memory = \"64MiB\""),
        ("compiler.concurrency = 1024", "compiler.children = 1"),
        ("sandbox.concurrency = 1024", "sandbox.places = 1"),
        ("sandbox.work_dir = \"16GiB\"", "sandbox.memory = \"16MiB\""),
        ("workers.slot_share = 1.0", "workers.account_share = 0.01"),
        ("workers.slice = \"100ms\"", "limits.cpu = \"1ms\""),
        ("workers.count = 1024", "workers.memory = \"16MiB\""),
        ("limits.memory = \"4GiB\"", "workers.memory = \"64MiB\""),
    ] {
        for alone in [low, high] {
            assert!(parse(alone, Path::new("")).is_ok_and(|finished| runs(&finished.config)), "{alone}");
        }
        let key = |line: &str| line.split(' ').next().unwrap().to_owned();
        let told = refusal(&format!("{low}\n{high}\n"));
        let place = format!("offload.toml:1:{}: {}: ", key(low).len() + 4, key(low));
        assert!(told.starts_with(&place) && told.lines().count() == 1, "{low}, {high}: {told}");
        assert!(
            told.contains(&format!("`{}`, ", key(high))) && told.contains(" (line 2); accepted: at most "),
            "{told}"
        );
    }
}

/// A chain of values: what is in the middle follows both ends.
#[test]
fn what_is_between_two_values_follows_both() {
    let all = config("listen.session_queue_bytes = \"1MiB\"\nlimits.module = \"64MiB\"");
    assert!(runs(&all) && all.listen.max_packet == ByteSize::mib(1));
    let all = config("limits.module = \"128MiB\"");
    assert!(
        runs(&all)
            && all.listen.max_packet == ByteSize::mib(136)
            && all.modules.per_principal == ByteSize::mib(128)
    );
    let all = config("queue.per_principal = 10000");
    assert_eq!(all.listen.session_queue, 20_000);
}

/// What contradicts itself in other ways than that one value is more than another.
#[test]
fn other_contradictions_name_both_keys() {
    for (text, key, other) in [
        ("queue.account_share = 0.01\nqueue.total = 10", "queue.account_share", "`queue.total`"),
        ("listen.address = \"0.0.0.0:1883\"", "listen.address", "`access.passwords`"),
        ("websocket.address = \"[::]:9001\"", "websocket.address", "`tls.client_ca`"),
        ("access.anonymous = false", "access.anonymous", "`access.passwords`"),
        ("websocket.address = \"127.0.0.1:1883\"", "websocket.address", "`listen.address`"),
        ("websocket.tls = true", "websocket.tls", "`[tls]`"),
        ("broker.cert = \"add.wat\"\nbroker.url = \"mqtts://a\"", "broker.cert", "`broker.key`"),
        ("broker.cafile = \"add.wat\"", "broker.cafile", "`broker.url`"),
        ("broker.password_file = \"add.wat\"", "broker.password_file", "`broker.username`"),
        (
            "tls = { certificate = \"add.wat\", key = \"add.wat\", require_certificate = true }",
            "tls.require_certificate",
            "`tls.client_ca`",
        ),
        (
            "access.rule = [{ users = [\"a\"], programs = [\"ad\"] }]",
            "access.rule[0].programs",
            "did you mean `add`?",
        ),
        (
            "answers.max = [{ topic = \"result/a-device-with-a-long-name-in-the-hall-of-presses\", bytes = 64 }]",
            "answers.max[0].bytes",
            "`answers.max[0].topic`",
        ),
        ("listen.max_byte_rate = 1", "listen.max_byte_rate", "0 for no limit"),
    ] {
        let told = refusal(text);
        assert!(
            told.starts_with("offload.toml:1:") && told.contains(&format!(": {key}: ")),
            "{text}: {told}"
        );
        assert!(told.lines().count() == 1 && told.contains(other) && told.contains("; accepted: "), "{told}");
    }
    let rule =
        "access.anonymous = false\naccess.passwords = \"add.wat\"\naccess.rule = [{ anonymous = true }]";
    assert!(
        refusal(rule).contains("access.rule[0].users: the rule names no client: `access.anonymous` is false")
    );
}

#[test]
fn files_that_are_named_are_there() {
    for (key, file) in [
        ("access.passwords", "access.passwords = \"missing\""),
        ("tls.certificate", "tls = { certificate = \"missing\", key = \"add.wat\" }"),
        ("modules.preload", "modules.preload = [\"missing\"]"),
        ("broker.cafile", "broker = { url = \"mqtts://a\", cafile = \"missing\" }"),
    ] {
        let told = refusal(file);
        assert!(
            told.contains(&format!(": {key}: missing: No such file or directory (os error 2); accepted: ")),
            "{told}"
        );
    }
}

/// Each key at its least and at its most, alone, or beside what its table cannot do without.
#[test]
fn every_value_in_its_range_goes_alone() {
    for section in Config::schema().iter().filter(|section| !section.path.contains('[')) {
        for key in &section.keys {
            let Some((_, range)) = key.accepts.rsplit_once(", ").filter(|(_, range)| range.contains(" to "))
            else {
                continue;
            };
            for value in range.split(" to ") {
                let is_number = value.bytes().all(|c| c.is_ascii_digit() || c == b'.');
                let value = if is_number { value.to_owned() } else { table::quoted(value) };
                let needed = match section.path.as_str() {
                    "network" => "network.gate = \"north\"\nnetwork.master = \"mqtt://127.0.0.1\"\n",
                    _ => "",
                };
                let text = format!("{needed}{} = {value}", section.key(key.name));
                let finished = parse(&text, Path::new("")).expect(&text);
                assert!(runs(&finished.config), "{text}");
                let printed = finished.config.to_commented_toml(&finished.given);
                assert_eq!(parse(&printed, Path::new("")).expect(&text), finished);
            }
        }
    }
}

/// Whether the embedded broker would run with it, and every derived value is one that could be written.
fn runs(config: &Config) -> bool {
    let in_range = config
        .sections()
        .iter()
        .filter(|section| section.present)
        .flat_map(|section| &section.keys)
        .all(|key| key.in_range);
    in_range && config.listen.broker_config(&config.watchdog).check().is_ok()
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

/// What replaces a piece of a file: what tears tables and values apart, or makes them others.
const ACCIDENTS: [&str; 14] = [
    "",
    "\n",
    "\"",
    "[",
    "]]",
    "{",
    "=",
    "#",
    ".",
    "-1",
    "9223372036854775808",
    "1e999",
    "\u{0}",
    "[[program]]\n",
];

proptest! {
    /// A file is a configuration that prints as itself, or refused in words, whatever has happened to it.
    #[test]
    fn a_file_of_any_text_is_read_or_refused(
        changes in vec((any::<prop::sample::Index>(), 0..24_usize, 0..ACCIDENTS.len()), 1..4),
    ) {
        let mut text = FULL.to_owned();
        for (at, length, accident) in changes {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.floor_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end.max(start), ACCIDENTS[accident]);
        }
        match parse(&text, Path::new("/elsewhere")) {
            Ok(finished) => {
                let printed = finished.config.to_commented_toml(&finished.given);
                prop_assert_eq!(parse(&printed, Path::new("/elsewhere")).expect(&printed), finished);
            }
            Err(refused) => prop_assert!(!refused.to_string().is_empty()),
        }
    }
}
