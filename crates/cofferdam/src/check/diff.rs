//! The difference of two texts, as `diff -u` prints it and `patch -p1` takes it.

/// Lines around a change that are printed too.
const CONTEXT: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Same,
    Old,
    New,
}

/// `""` where nothing differs. `name` is the file's, with `a/` and `b/` put before it where it is relative.
pub fn unified(name: &str, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let (a, b): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let script = script(&a, &b);
    let (from, to) = match name.starts_with('/') {
        true => (name.to_owned(), name.to_owned()),
        false => (format!("a/{name}"), format!("b/{name}")),
    };
    let mut out = format!("--- {from}\n+++ {to}\n");
    let changed: Vec<usize> = (0..script.len()).filter(|at| script[*at] != Line::Same).collect();
    let mut rest = changed.as_slice();
    while let Some(first) = rest.first() {
        // Changes whose contexts meet are one hunk.
        let mut count = 1;
        while count < rest.len() && rest[count] - rest[count - 1] <= 2 * CONTEXT + 1 {
            count += 1;
        }
        let (begin, end) = (first.saturating_sub(CONTEXT), (rest[count - 1] + CONTEXT + 1).min(script.len()));
        rest = &rest[count..];
        hunk(&script, begin..end, &a, &b, &mut out);
    }
    out
}

fn hunk(script: &[Line], range: std::ops::Range<usize>, a: &[&str], b: &[&str], out: &mut String) {
    let count = |lines: &[Line], not: Line| lines.iter().filter(|line| **line != not).count();
    let (before, part) = (&script[..range.start], &script[range]);
    let (mut old, mut new) = (count(before, Line::New), count(before, Line::Old));
    let (old_lines, new_lines) = (count(part, Line::New), count(part, Line::Old));
    // A side without lines is named by the line before it.
    let at = |start: usize, lines: usize| if lines == 0 { start } else { start + 1 };
    out.push_str(&format!("@@ -{},{old_lines} +{},{new_lines} @@\n", at(old, old_lines), at(new, new_lines)));
    for line in part {
        let (sign, text) = match line {
            Line::Same => (' ', a[old]),
            Line::Old => ('-', a[old]),
            Line::New => ('+', b[new]),
        };
        old += usize::from(*line != Line::New);
        new += usize::from(*line != Line::Old);
        out.push(sign);
        out.push_str(text);
        if !text.ends_with('\n') {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// The shortest way from `a` to `b` (Myers 1986): its cost follows the number of lines that differ.
fn script(a: &[&str], b: &[&str]) -> Vec<Line> {
    let (n, m) = (a.len() as isize, b.len() as isize);
    let most = n + m;
    let at = |k: isize| usize::try_from(k + most).unwrap_or_default();
    let line =
        |text: &[&str], i: isize| usize::try_from(i).ok().and_then(|i| text.get(i).map(|t| (*t).to_owned()));
    let mut furthest = vec![0isize; usize::try_from(2 * most + 1).unwrap_or_default().max(2)];
    let mut trace = Vec::new();
    'search: for d in 0..=most {
        trace.push(furthest.clone());
        for k in (-d..=d).step_by(2) {
            let down = k == -d || (k != d && furthest[at(k - 1)] < furthest[at(k + 1)]);
            let mut x = if down { furthest[at(k + 1)] } else { furthest[at(k - 1)] + 1 };
            while x < n && x - k < m && line(a, x) == line(b, x - k) {
                x += 1;
            }
            furthest[at(k)] = x;
            if x >= n && x - k >= m {
                break 'search;
            }
        }
    }
    let (mut x, mut y) = (n, m);
    let mut script = Vec::new();
    for (d, furthest) in trace.iter().enumerate().rev() {
        let (d, k) = (d as isize, x - y);
        let down = k == -d || (k != d && furthest[at(k - 1)] < furthest[at(k + 1)]);
        let before = if down { k + 1 } else { k - 1 };
        let (px, py) = if d == 0 { (0, 0) } else { (furthest[at(before)], furthest[at(before)] - before) };
        while x > px && y > py {
            script.push(Line::Same);
            (x, y) = (x - 1, y - 1);
        }
        if d > 0 {
            script.push(if down { Line::New } else { Line::Old });
            (x, y) = (px, py);
        }
    }
    script.reverse();
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_printed_as_diff_prints_it() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n";
        let new = "a\nB\nc\nd\ne\nf\ng\nh\ni\nj\nj2\nk\n";
        assert_eq!(
            unified("x.yaml", old, new),
            "--- a/x.yaml\n+++ b/x.yaml\n@@ -1,5 +1,5 @@\n a\n-b\n+B\n c\n d\n e\n@@ -8,5 +8,5 @@\n h\n i\n j\n+j2\n k\n-l\n"
        );
        assert_eq!(unified("x", old, old), "");
        assert_eq!(
            unified("/x", "", "a"),
            "--- /x\n+++ /x\n@@ -0,0 +1,1 @@\n+a\n\\ No newline at end of file\n"
        );
        assert_eq!(
            unified("x", "a\n", "a"),
            "--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-a\n+a\n\\ No newline at end of file\n"
        );
    }

    /// Carries a script out: every text must come to the other.
    #[test]
    fn a_script_leads_from_one_text_to_the_other() {
        let texts = ["", "a\n", "a\nb\n", "b\na\n", "x\na\ny\nb\nz\n", "a\na\na\n", "q\nr\ns\n"];
        for old in texts {
            for new in texts {
                let (a, b): (Vec<_>, Vec<_>) =
                    (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
                let (mut x, mut y, mut made) = (0, 0, String::new());
                for line in script(&a, &b) {
                    match line {
                        Line::Same => {
                            assert_eq!(a[x], b[y]);
                            made.push_str(a[x]);
                            (x, y) = (x + 1, y + 1);
                        }
                        Line::Old => x += 1,
                        Line::New => {
                            made.push_str(b[y]);
                            y += 1;
                        }
                    }
                }
                assert_eq!((made.as_str(), x, y), (new, a.len(), b.len()), "{old:?} → {new:?}");
            }
        }
    }
}
