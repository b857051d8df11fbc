//! What `help` says.

use std::fmt::Write as _;

use super::code;
use super::command::COMMANDS;
use super::content::KINDS;
use super::endpoint::{MAX_ROUTES, MAX_SUBSCRIPTIONS, MAX_VALUES};
use super::network::{BUFFER, MAX_NETWORKS, MAX_ON_THE_WAY, MAX_REMEMBERED, MAX_SESSIONS};
use super::table::{paragraph, table};

/// What is beside the commands.
const TOPICS: [&str; 4] = ["packets", "codes", "cipher", "limits"];

/// What is said at the start.
pub fn start(seed: u64, columns: usize) -> String {
    let mut text = paragraph(
        "",
        &format!(
            "A virtual network: brokers, clients, routers and a master exchange packets by your commands. Its time \
             goes on by `step` and `run` alone. Keys come from seed {seed}: who knows it knows them, so they are for \
             teaching and for nothing else."
        ),
        columns,
    );
    text.push('\n');
    text.push_str(&commands(columns));
    text.push('\n');
    text.push_str(&paragraph(
        "",
        "To begin: `open broker b1`, `join`, `open client c1`, `join`, `run`, `conn`, `run`, `subs lamp`, `publ lamp \
         on`, `run`. Several networks: `open master m`, `join`, and a router in each network.",
        columns,
    ));
    text.push('\n');
    text
}

/// Help on a topic, or on all commands. `None` where it is no topic.
pub fn on(topic: Option<&str>, columns: usize) -> Option<String> {
    let Some(topic) = topic else { return Some(commands(columns)) };
    match topic {
        "packets" => Some(packets(columns)),
        "codes" => Some(codes(columns)),
        "cipher" => Some(CIPHER.lines().map(|line| paragraph_or_line(line, columns)).collect()),
        "limits" => Some(limits(columns)),
        _ => {
            let (name, arguments, what) = COMMANDS.iter().find(|(name, ..)| *name == topic)?;
            Some(paragraph(&format!("{}: ", [*name, *arguments].join(" ").trim_end()), what, columns))
        }
    }
}

/// What there is help on.
pub fn topics() -> String {
    let names = COMMANDS.iter().map(|(name, ..)| *name);
    names.chain(TOPICS).collect::<Vec<_>>().join(", ")
}

fn commands(columns: usize) -> String {
    let forms = COMMANDS.iter().map(|(name, arguments, what)| ([*name, *arguments].join(" "), *what));
    let width = forms.clone().map(|(form, _)| form.len()).max().unwrap_or(0);
    forms.map(|(form, what)| paragraph(&format!("  {form:width$}  "), what, columns)).collect()
}

fn packets(columns: usize) -> String {
    let mut rows = vec![["type", "in MQTT", "what for"].map(str::to_owned).to_vec()];
    rows.extend(KINDS.iter().map(|(_, name, mqtt, what)| [*name, *mqtt, *what].map(str::to_owned).to_vec()));
    let mut text = table(&rows, columns);
    text.push_str(&paragraph(
        "",
        "MQTT leaves joining and leaving to the network below it (TCP). Each value is kept as a topic's last one, as if \
         it were published with MQTT's RETAIN flag.",
        columns,
    ));
    text
}

fn codes(columns: usize) -> String {
    let rows: Vec<Vec<String>> =
        code::ALL.iter().map(|(code, _, _, meaning)| vec![code.to_string(), (*meaning).to_owned()]).collect();
    table(&rows, columns)
}

fn limits(columns: usize) -> String {
    let mut text = String::new();
    for (what, bound) in [
        ("sessions", MAX_SESSIONS),
        ("local networks", MAX_NETWORKS),
        ("packets that wait at a sender for one receiver that does not listen; more are lost", BUFFER),
        ("packets on the way; more are lost", MAX_ON_THE_WAY),
        ("packets that are remembered", MAX_REMEMBERED),
        ("topics whose last value a broker or master keeps", MAX_VALUES),
        ("subscriptions of a connection", MAX_SUBSCRIPTIONS),
        ("rows of a table of local and global addresses", MAX_ROUTES),
    ] {
        // Writing to a string does not fail.
        let _ = write!(text, "{}", paragraph(&format!("{bound:>6}  "), what, columns));
    }
    text
}

/// Sums stand as they are, items of a list are as far in as their first line.
fn paragraph_or_line(line: &str, columns: usize) -> String {
    match line.strip_prefix(ITEM) {
        Some(item) => paragraph(ITEM, item, columns),
        None if line.is_empty() || line.starts_with(' ') => format!("{line}\n"),
        None => paragraph("", line, columns),
    }
}

/// Before each item of a list.
const ITEM: &str = "  - ";

/// The toy, and why it is one. A paragraph is a line.
const CIPHER: &str = concat!(
    "What classroom simulators use, by hand. Both agree on p = 23 and g = 5; c1 thinks of 6, b1 of 15:\n",
    "  c1 sends 5^6  mod 23 = 8        b1 sends 5^15 mod 23 = 19\n",
    "  c1 has   19^6 mod 23 = 2        b1 has   8^15 mod 23 = 2\n",
    "The key is 2, which was never sent. Each letter moves on by it: `lamp` travels as `ncor`.\n",
    "\n",
    "It teaches the idea, and protects nothing:\n",
    "  - 22 keys are tried by hand, and 8 = 5^x mod 23 is solved by trying x;\n",
    "  - a letter always becomes the same letter, so counting letters finds the key;\n",
    "  - who turns `ncor` into `ncos` has published `lamq`: nothing tells the broker.\n",
    "\n",
    "What these sessions use is what sealed requests use, by the same code:\n",
    "  - X25519 (RFC 7748) in place of 5^x mod 23: a curve with about 2^252 points, on which nobody can solve for x;\n",
    "  - HKDF-SHA256 (RFC 5869), which makes the key of what both have computed; HPKE (RFC 9180) says how it all fits ",
    "together;\n",
    "  - ChaCha20-Poly1305 (RFC 8439) in place of moving letters: each packet has a nonce of its own, so that equal ",
    "values travel differently, and a tag of 16 bytes, so that what was altered does not open.\n",
    "The tag covers the header as well: number, type, sender and receiver. A receiver takes no number twice (`tamper ",
    "replay`).\n",
    "\n",
    "What is left to people is whether a public key is the broker's: it is told in clear, and whoever puts another one ",
    "in its place (`tamper key`) can stand between both. So compare the fingerprints in `sessions` by another way, as ",
    "those of a gateway to which requests are sealed.\n",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_help_on_each_topic_and_it_fits() {
        for topic in topics().split(", ") {
            let text = on(Some(topic), 80).unwrap();
            assert!(
                !text.is_empty() && text.lines().all(|line| line.chars().count() <= 80),
                "{topic}: {text}"
            );
        }
        assert!(on(Some("weather"), 80).is_none());
        assert!(start(1, 80).lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn the_toy_is_computed_right() {
        let power = |base: u64, exponent: u32| (0..exponent).fold(1, |product, _| product * base % 23);
        assert_eq!([power(5, 6), power(5, 15), power(19, 6), power(8, 15)], [8, 19, 2, 2]);
        let moved: String = "lamp".bytes().map(|letter| char::from(letter + 2)).collect();
        assert_eq!(moved, "ncor");
    }
}
