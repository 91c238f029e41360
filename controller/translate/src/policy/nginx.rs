//! The syntax of nginx's configuration: words, strings, blocks. Nothing in here knows what a directive means.

/// A directive with its line, counted from 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Directive {
    pub(super) line: usize,
    /// Its name and parameters; quotes are taken off.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Self>>,
}

impl Directive {
    /// As it is written, nearly, and without what is in its block.
    pub(super) fn shown(&self) -> String {
        self.words.join(" ")
    }
}

/// Why a text is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) reason: &'static str,
}

/// The deepest nesting that is read.
const DEEPEST: usize = 8;

/// Reads directives.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, Malformed> {
    let mut tokens = tokens(text)?.into_iter();
    block(&mut tokens, 0)
}

#[derive(Debug)]
enum Token {
    Word(usize, String),
    Semicolon,
    Open(usize),
    Close(usize),
}

fn tokens(text: &str) -> Result<Vec<Token>, Malformed> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => line += 1,
            character if character.is_whitespace() => {}
            '#' => while characters.next_if(|next| *next != '\n').is_some() {},
            ';' => tokens.push(Token::Semicolon),
            '{' => tokens.push(Token::Open(line)),
            '}' => tokens.push(Token::Close(line)),
            quote @ ('"' | '\'') => {
                let start = line;
                let mut word = String::new();
                loop {
                    match characters.next() {
                        None => {
                            return Err(Malformed {
                                line: start,
                                reason: "a quote is not closed",
                            });
                        }
                        Some('\\') => match characters.next() {
                            Some(next @ ('"' | '\'' | '\\')) => word.push(next),
                            Some(next) => word.extend(['\\', next]),
                            None => {}
                        },
                        Some(next) if next == quote => break,
                        Some(next) => {
                            line += usize::from(next == '\n');
                            word.push(next);
                        }
                    }
                }
                tokens.push(Token::Word(start, word));
            }
            first => {
                let mut word = String::from(first);
                // `${name}` is part of a word, and so is a brace within a regular expression.
                while let Some(next) =
                    characters.next_if(|next| !next.is_whitespace() && !matches!(next, ';'))
                {
                    if next == '{' && !word.ends_with('$') && !word.contains('\\') {
                        tokens.push(Token::Word(line, std::mem::take(&mut word)));
                        tokens.push(Token::Open(line));
                        break;
                    }
                    if next == '}' && !word.contains('{') {
                        tokens.push(Token::Word(line, std::mem::take(&mut word)));
                        tokens.push(Token::Close(line));
                        break;
                    }
                    word.push(next);
                }
                if !word.is_empty() {
                    tokens.push(Token::Word(line, word));
                }
            }
        }
    }
    Ok(tokens)
}

fn block(
    tokens: &mut impl Iterator<Item = Token>,
    depth: usize,
) -> Result<Vec<Directive>, Malformed> {
    let mut directives = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut start = 0;
    let malformed = |line, reason| Err(Malformed { line, reason });
    loop {
        match tokens.next() {
            Some(Token::Word(line, word)) => {
                if words.is_empty() {
                    start = line;
                }
                words.push(word);
            }
            Some(Token::Semicolon) if words.is_empty() => {}
            Some(Token::Semicolon) => directives.push(Directive {
                line: start,
                words: std::mem::take(&mut words),
                block: None,
            }),
            Some(Token::Open(line)) => {
                if words.is_empty() {
                    return malformed(line, "a block has no name");
                }
                if depth >= DEEPEST {
                    return malformed(line, "blocks are nested too deeply");
                }
                directives.push(Directive {
                    line: start,
                    words: std::mem::take(&mut words),
                    block: Some(block(tokens, depth + 1)?),
                });
            }
            Some(Token::Close(line)) if depth == 0 => {
                return malformed(line, "a `}` has no `{`");
            }
            Some(Token::Close(_)) | None if !words.is_empty() => {
                return malformed(start, "a `;` is missing");
            }
            None if depth > 0 => return malformed(start.max(1), "a block is not closed"),
            Some(Token::Close(_)) | None => return Ok(directives),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_with_their_lines() {
        let text = "# note\nadd_header X-A \"a; b\" always;\nif ($request_method ~* (PUT|DELETE)) {\n  return 405;\n}\nproxy_set_header Host ${host};location /a{deny all;}";
        let read: Vec<_> = parse(text)
            .unwrap()
            .into_iter()
            .map(|directive| {
                let block = directive.block.map(|block| block.len());
                (directive.line, directive.words.join("|"), block)
            })
            .collect();
        let want = [
            (2, "add_header|X-A|a; b|always", None),
            (3, "if|($request_method|~*|(PUT|DELETE))", Some(1)),
            (6, "proxy_set_header|Host|${host}", None),
            (6, "location|/a", Some(1)),
        ]
        .map(|(line, words, block)| (line, words.to_owned(), block));
        assert_eq!(read, want);
    }

    #[test]
    fn what_is_no_configuration_is_named() {
        for (text, line, reason) in [
            ("a;\nb", 2, "a `;` is missing"),
            ("a {\n b;\n", 2, "a block is not closed"),
            ("a;\n}", 2, "a `}` has no `{`"),
            ("a \"b;\n", 1, "a quote is not closed"),
            ("{ }", 1, "a block has no name"),
        ] {
            assert_eq!(parse(text), Err(Malformed { line, reason }), "{text}");
        }
        assert!(parse(&"a {".repeat(20)).is_err());
    }
}
