//! Splits Rust source into code and comments, line by line. Strings and characters are emptied, so a word within them
//! is not taken for code.

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Line {
    pub code: String,
    pub comment: String,
}

pub struct Source {
    lines: Vec<Line>,
}

enum State {
    Code,
    LineComment,
    /// How deep: block comments nest.
    BlockComment(u32),
    Text,
    /// How many `#` end it.
    RawText(usize),
}

impl Source {
    pub fn new(text: &str) -> Source {
        let chars: Vec<char> = text.chars().collect();
        let mut lines = vec![Line::default()];
        let mut state = State::Code;
        let mut at = 0;
        while at < chars.len() {
            let (c, next) = (chars[at], chars.get(at + 1).copied());
            let line = lines.last_mut().expect("there is always a line");
            let mut step = 1;
            match &mut state {
                _ if c == '\n' => {
                    if matches!(state, State::LineComment) {
                        state = State::Code;
                    }
                    lines.push(Line::default());
                }
                State::Code => match (c, next) {
                    ('/', Some('/')) => {
                        state = State::LineComment;
                        step = 2;
                    }
                    ('/', Some('*')) => {
                        state = State::BlockComment(1);
                        step = 2;
                    }
                    ('"', _) => {
                        line.code.push('"');
                        state = State::Text;
                    }
                    ('r', Some('"' | '#')) if !ends_in_word(&line.code) => {
                        let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                        line.code.push('r');
                        if chars.get(at + 1 + hashes) == Some(&'"') {
                            state = State::RawText(hashes);
                            step = 2 + hashes;
                        }
                    }
                    ('b', Some('"' | '\'' | 'r')) if !ends_in_word(&line.code) => line.code.push(' '),
                    ('\'', _) => {
                        // A character ends with a quote; a lifetime does not.
                        let length = match next {
                            Some('\\') => chars[at + 3..].iter().position(|c| *c == '\'').map(|n| n + 4),
                            Some(_) if chars.get(at + 2) == Some(&'\'') => Some(3),
                            _ => None,
                        };
                        line.code.push('\'');
                        step = length.unwrap_or(1);
                    }
                    _ => line.code.push(c),
                },
                State::LineComment => line.comment.push(c),
                State::BlockComment(depth) => match (c, next) {
                    ('/', Some('*')) => {
                        *depth += 1;
                        step = 2;
                    }
                    ('*', Some('/')) => {
                        *depth -= 1;
                        if *depth == 0 {
                            state = State::Code;
                        }
                        step = 2;
                    }
                    _ => line.comment.push(c),
                },
                State::Text => match c {
                    // What is escaped is skipped, but not the end of a line, which must be counted.
                    '\\' if next != Some('\n') => step = 2,
                    '"' => {
                        line.code.push('"');
                        state = State::Code;
                    }
                    _ => {}
                },
                State::RawText(hashes) => {
                    let hashes = *hashes;
                    if c == '"'
                        && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
                    {
                        line.code.push('"');
                        state = State::Code;
                        step = 1 + hashes;
                    }
                }
            }
            at += step;
        }
        Source { lines }
    }

    /// Number from 1, line.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Where the tests begin that stand at the end of a file.
    pub fn first_test_line(&self) -> Option<usize> {
        self.lines().find(|(_, line)| line.code.contains("#[cfg(test)]")).map(|(at, _)| at)
    }

    /// Whether a comment with this text stands on the line, in the comment lines above the statement it belongs to, or between
    /// them.
    pub fn is_explained(&self, line: usize, text: &str) -> bool {
        let explains = |l: &Line| !l.comment.trim().is_empty() && l.comment.contains(text);
        let mut at = line - 1;
        if explains(&self.lines[at]) {
            return true;
        }
        while at > 0 {
            at -= 1;
            let above = &self.lines[at];
            if explains(above) {
                return true;
            }
            let code = above.code.trim();
            let comment_only = code.is_empty() && !above.comment.is_empty();
            // A statement may have begun on an earlier line, and attributes may stand before it.
            let goes_on = !code.is_empty() && !code.ends_with([';', '{', '}']) || code.starts_with("#[");
            if !(comment_only || goes_on) {
                return false;
            }
        }
        false
    }
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Whether the word stands in the text, not as a part of another.
pub fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

/// `unsafe {` and `unsafe impl`; an `unsafe fn` is explained by its own documentation, and its body has blocks.
pub fn opens_unsafe_block(code: &str) -> bool {
    code.match_indices("unsafe").any(|(at, word)| {
        let rest = code[at + word.len()..].trim_start();
        has_word(code, "unsafe") && (rest.starts_with('{') || rest.starts_with("impl"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        Source::new(text).lines().map(|(_, l)| l.code.trim().to_owned()).collect()
    }

    #[test]
    fn strings_characters_and_comments_are_not_code() {
        for (text, want) in [
            ("a(\"b\"); // c", "a(\"\");"),
            ("a /* b /* c */ d */ e", "a  e"),
            (r#"a("\"b")"#, r#"a("")"#),
            (r##"a(r#"b "c" "#, d)"##, r#"a(r", d)"#),
            ("a('\"', '\\'', b)", "a(', ', b)"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("a(b\"c\")", "a( \"\")"),
            ("a(b'\\n', b'x')", "a( ',  ')"),
            ("for_r\"x\"", "for_r\"\""),
        ] {
            assert_eq!(code(text), [want], "{text}");
        }
        assert_eq!(code("a(\"b\n\\\n// c\");\nd"), ["a(\"", "", "\");", "d"]);
    }

    #[test]
    fn a_comment_explains_the_statement_below_it() {
        let source = Source::new("// why\nlet x =\n    f();\nlet y = 1;\n\nlet z = 2;\n");
        assert!(source.is_explained(2, "why"));
        assert!(source.is_explained(3, "why"));
        assert!(!source.is_explained(4, "why"));
        assert!(!source.is_explained(6, ""));
    }
}
