//! `$(VAR)` as `k8s.io/kubernetes/third_party/forked/golang/expansion` reads it.

/// Expands `$(NAME)`; `$$` is a dollar sign that starts nothing, so `$$(NAME)` stays `$(NAME)`; a name that `lookup` does not
/// know, and a reference without its end, stay as they are written.
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match after.as_bytes().first() {
            Some(b'$') => {
                output.push('$');
                &after[1..]
            }
            Some(b'(') => match after.find(')') {
                Some(end) => {
                    let name = &after[1..end];
                    match lookup(name) {
                        Some(value) => output.push_str(&value),
                        None => {
                            output.push_str("$(");
                            output.push_str(name);
                            output.push(')');
                        }
                    }
                    &after[end + 1..]
                }
                None => {
                    output.push_str("$(");
                    &after[1..]
                }
            },
            _ => {
                output.push('$');
                after
            }
        };
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "VAR_A" => Some("A".to_owned()),
            "VAR_B" => Some("B".to_owned()),
            "VAR_REF" => Some("$(VAR_A)".to_owned()),
            "VAR_EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn references_expand_as_in_kubernetes() {
        for (input, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)$(VAR_B)", "AB"),
            ("$(VAR_EMPTY)x", "x"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$$$$$(VAR_A)", "$$A"),
            ("$VAR_A", "$VAR_A"),
            ("$(VAR_A", "$(VAR_A"),
            ("$(VAR_A$(VAR_B)", "$(VAR_A$(VAR_B)"),
            ("$(", "$("),
            ("$", "$"),
            ("a$", "a$"),
            ("$$", "$"),
            ("$()", "$()"),
            ("$é$(VAR_A)", "$éA"),
            ("\n$(VAR_A)\n", "\nA\n"),
            ("f$$o", "f$o"),
            ("$$(VAR_A) costs $5", "$(VAR_A) costs $5"),
        ] {
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_left_alone(input in "[^$]{0,40}") {
            prop_assert_eq!(expand(&input, lookup), input);
        }

        #[test]
        fn expanding_never_panics(input in "[$()AVR_é]{0,30}") {
            expand(&input, lookup);
        }
    }
}
