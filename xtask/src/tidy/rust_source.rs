//! Which part of a Rust file is code, comment or the text of a literal, and which part is for tests.

/// What a byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Code,
    Comment,
    /// A literal of characters, its delimiters included.
    Literal,
}

/// A file, and the kind of each of its bytes.
pub struct RustSource<'a> {
    text: &'a str,
    kinds: Vec<Kind>,
}

impl<'a> RustSource<'a> {
    /// Never fails: what is no Rust is code.
    pub fn new(text: &'a str) -> Self {
        let mut kinds = Vec::with_capacity(text.len());
        while let Some(rest) = text.get(kinds.len()..).filter(|rest| !rest.is_empty()) {
            let in_word = text[..kinds.len()].ends_with(|last: char| last.is_alphanumeric() || last == '_');
            let (length, kind) = token(rest, in_word);
            kinds.resize(kinds.len() + length, kind);
        }
        Self { text, kinds }
    }

    /// Of the byte at this place.
    pub fn kind(&self, at: usize) -> Kind {
        self.kinds.get(at).copied().unwrap_or(Kind::Code)
    }

    /// The code, with spaces where comments, literals and code for tests are: lines stay where they are.
    pub fn code_outside_tests(&self) -> String {
        let mut code = self.code();
        while let Some(begin) = code.find("#[cfg(test)]").or_else(|| code.find("#[cfg(all(test")) {
            let end = begin + item_length(&code[begin..]);
            let blank: String = code[begin..end].chars().map(blank).collect();
            code.replace_range(begin..end, &blank);
        }
        code
    }

    /// The code, with spaces where comments and literals are.
    pub fn code(&self) -> String {
        let keep = |(at, letter): (usize, char)| match self.kinds[at] {
            Kind::Code => letter.to_string(),
            Kind::Comment | Kind::Literal => blank(letter).to_string().repeat(letter.len_utf8()),
        };
        self.text.char_indices().map(keep).collect()
    }
}

fn blank(letter: char) -> char {
    if letter == '\n' { '\n' } else { ' ' }
}

/// The bytes of what the text begins with, up to where it may change its kind.
fn token(text: &str, in_word: bool) -> (usize, Kind) {
    let bytes = text.as_bytes();
    if text.starts_with("//") {
        return (text.find('\n').unwrap_or(text.len()), Kind::Comment);
    }
    if text.starts_with("/*") {
        return (block_comment_length(text), Kind::Comment);
    }
    if bytes[0] == b'"' {
        return (quoted_length(text, '"'), Kind::Literal);
    }
    if bytes[0] == b'\'' {
        return match char_length(text) {
            Some(length) => (length, Kind::Literal),
            None => (1, Kind::Code),
        };
    }
    if !in_word {
        let raw =
            text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'));
        if let Some(length) = raw.and_then(|rest| Some(text.len() - rest.len() + raw_length(rest)?)) {
            return (length, Kind::Literal);
        }
    }
    (text.chars().next().map_or(1, char::len_utf8), Kind::Code)
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// From the opening quote to behind the closing one.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `'a'` and `'\n'` are characters, `'a` is a lifetime.
fn char_length(text: &str) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    let (_, first) = letters.next()?;
    if first == '\\' {
        return Some(quoted_length(text, '\''));
    }
    let (at, quote) = letters.next()?;
    (quote == '\'' && first != '\'').then_some(at + 1)
}

/// Of `#"..."#` and the like, without what is in front of them.
fn raw_length(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let inside = text[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(hashes + 1 + length)
}

/// From an attribute to the end of the item that it is on: a closing brace, or a semicolon before any brace.
fn item_length(code: &str) -> usize {
    let attributes = attributes_length(code);
    let mut depth = 0_usize;
    for (at, letter) in code.char_indices().skip_while(|(at, _)| *at < attributes) {
        match letter {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Attributes that follow one another: `#[cfg(test)] #[path = "x"]`.
fn attributes_length(code: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = code[at..].trim_start();
        if !rest.starts_with("#[") {
            return at;
        }
        let begin = code.len() - rest.len();
        let mut depth = 0_usize;
        let end = rest.char_indices().find_map(|(at, letter)| {
            match letter {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            (letter == ']' && depth == 0).then_some(at + 1)
        });
        at = begin + end.unwrap_or(rest.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter a byte: code, comment or literal.
    fn kinds(text: &str) -> String {
        let letter = |kind: &Kind| match kind {
            Kind::Code => '.',
            Kind::Comment => 'c',
            Kind::Literal => 'l',
        };
        RustSource::new(text).kinds.iter().map(letter).collect()
    }

    #[test]
    fn comments_and_literals_are_told_from_code() {
        for (text, expected) in [
            ("a // b\nc", "..cccc.."),
            ("a /* /* */ */ b", "..ccccccccccc.."),
            (r#"f("//", 1)"#, "..llll...."),
            (r#""\"" x"#, "llll.."),
            ("'a' 'b x", "lll....."),
            (r"'\'' x", "llll.."),
            ("r#\"\"//\"# x", "llllllll.."),
            ("for\"x\"", "...lll"),
            ("br\"x\" r#type", "lllll......."),
            ("'ä' x", "llll.."),
        ] {
            assert_eq!(kinds(text), expected, "{text}");
        }
    }

    #[test]
    fn code_for_tests_is_left_out_and_lines_stay() {
        let text = "a;\n#[cfg(test)]\nmod tests {\n  { }\n}\n#[cfg(test)]\n#[path = \"x\"]\nmod x;\nb // c\n";
        let code = RustSource::new(text).code_outside_tests();
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a;", "b"]);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.lines().nth(8).map(str::trim), Some("b"));
    }
}
