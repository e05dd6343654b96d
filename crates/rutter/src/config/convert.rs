//! A Linkerd 1 file as one for rutter: what is not there is commented out, everything else stays as it is written.
//!
//! No line is added or taken away, so that a line of the answer is that line of the file.

use super::problem::{Problem, Problems, Remedy};
use super::yaml::{self, Entry, Node, Value};

/// What came of it.
#[derive(Debug)]
pub struct Converted {
    /// The text; as valid as [`left`](Self::left) says.
    pub text: String,
    /// What was commented out, in the order of the file.
    pub taken_out: Problems,
    /// What is still wrong and has to be mended by hand.
    pub left: Problems,
}

/// Takes out of `text` what `check` says is not there. `check` reads the same text (or a part of it, at its own lines) and
/// gives all that is wrong with it, and what it read.
pub fn convert(text: &str, check: impl Fn(&str) -> (Problems, String)) -> Converted {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut taken_out: Option<Problems> = None;
    loop {
        let whole = lines.join("\n") + "\n";
        let (problems, read) = check(&whole);
        let mut progress = false;
        if let Ok(tree) = yaml::parse(&read) {
            for problem in &problems.all {
                if take_out(&mut lines, &tree, problem).is_some() {
                    let all = taken_out.get_or_insert_with(|| Problems::of(&problems.file, text));
                    all.all.push(problem.clone());
                    progress = true;
                    break;
                }
            }
        }
        if !progress {
            let mut taken_out = taken_out.unwrap_or_else(|| Problems::of(&problems.file, text));
            taken_out.sort();
            return Converted {
                text: whole,
                taken_out,
                left: problems.only_errors(),
            };
        }
    }
}

/// Comments out what the problem is about; none when that is not to be done, or cannot be.
fn take_out(lines: &mut [String], tree: &Node, problem: &Problem) -> Option<()> {
    let mut steps = steps(&problem.key);
    match problem.remedy {
        Remedy::None => return None,
        Remedy::WithoutKey => {}
        Remedy::WithoutPart => _ = steps.pop(),
    }
    let last = steps.pop()?;
    let mut node = tree;
    for step in &steps {
        node = into(node, step)?;
    }
    match last {
        Step::Key(key) => without_entry(lines, node.entry(&key)?),
        Step::Item(at) => without_item(lines, item(node, at)?),
    }
}

#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Item(usize),
}

/// `routers[0].servers` step by step.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, items) = part
            .split_once('[')
            .map_or((part, ""), |(key, rest)| (key, rest));
        if !key.is_empty() {
            steps.push(Step::Key(key.to_owned()));
        }
        let items = items
            .split('[')
            .filter_map(|item| item.trim_end_matches(']').parse().ok());
        steps.extend(items.map(Step::Item));
    }
    steps
}

fn into<'a>(node: &'a Node, step: &Step) -> Option<&'a Node> {
    match step {
        Step::Key(key) => node.get(key),
        Step::Item(at) => item(node, *at),
    }
}

fn item(node: &Node, at: usize) -> Option<&Node> {
    match &node.value {
        Value::List(items) => items.get(at),
        // One that stands for a list of one.
        _ => (at == 0).then_some(node),
    }
}

/// A mapping's entry with all that belongs to it.
fn without_entry(lines: &mut [String], entry: &Entry) -> Option<()> {
    let (first, column) = (entry.place.line.checked_sub(1)?, entry.place.column - 1);
    let before = text_before(lines, first, column)?;
    let is_list = matches!(entry.node.value, Value::List(_));
    let end = end_of(lines, first, |line| {
        let indent = indent(line);
        indent > column || (is_list && indent == column && line.trim_start().starts_with('-'))
    });
    match before.trim() {
        "" => comment(lines, first, end, column),
        // The first of a list's item: its dash stays.
        "-" => {
            let (dash, rest) = split(&lines[first], column);
            lines[first] = format!("{dash}# {rest}");
            comment(lines, first + 1, end, column);
        }
        _ => return None,
    }
    Some(())
}

/// A list's item with all that belongs to it.
fn without_item(lines: &mut [String], node: &Node) -> Option<()> {
    let (first, column) = (node.place.line.checked_sub(1)?, node.place.column - 1);
    let before = text_before(lines, first, column)?;
    if before.trim() != "-" {
        return None;
    }
    let dash = indent(&before);
    let end = end_of(lines, first, |line| indent(line) > dash);
    comment(lines, first, end, dash);
    Some(())
}

/// What stands before that column, if nothing but white space and dashes does.
fn text_before(lines: &[String], line: usize, column: usize) -> Option<String> {
    let before: String = lines.get(line)?.chars().take(column).collect();
    before
        .chars()
        .all(|c| c == ' ' || c == '-')
        .then_some(before)
}

/// The line after the last one that belongs to what begins at `first`.
fn end_of(lines: &[String], first: usize, belongs: impl Fn(&str) -> bool) -> usize {
    let mut end = first + 1;
    for (at, line) in lines.iter().enumerate().skip(first + 1) {
        match line.trim() {
            "" => continue,
            _ if belongs(line) => end = at + 1,
            text if text.starts_with('#') => continue,
            _ => break,
        }
    }
    end
}

fn comment(lines: &mut [String], first: usize, end: usize, column: usize) {
    for line in lines.iter_mut().take(end).skip(first) {
        if !line.trim().is_empty() {
            let (before, rest) = split(line, column);
            *line = format!("{before}# {rest}");
        }
    }
}

fn split(line: &str, column: usize) -> (String, String) {
    (
        line.chars().take(column).collect(),
        line.chars().skip(column).collect(),
    )
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Purpose, load};

    fn converted(text: &str) -> Converted {
        convert(text, |text| {
            let environment = Environment::default().for_purpose(Purpose::Text);
            let problems = match load("linkerd.yaml", text, &environment) {
                Ok(loaded) => loaded.problems,
                Err(problems) => problems,
            };
            (problems, text.to_owned())
        })
    }

    const FILE: &str = "\
admin:
  ip: 0.0.0.0
namers:
- kind: io.l5d.marathon   # not here
  host: localhost

  port: 8080
- kind: io.l5d.fs
  rootDir: disco
routers:
- protocol: h2
  label: grpc
  servers:
  - port: 4240
- protocol: http
  announcers:
  - kind: io.l5d.serversets
    zkAddrs: []
  frobnicate: {a: 1}
  servers:
  - frob: 1
    port: 4140
";

    #[test]
    fn what_is_not_there_is_commented_out_and_all_else_stays() {
        let converted = converted(FILE);
        assert_eq!(converted.left.errors(), 0, "{}", converted.left.render());
        assert_eq!(
            converted.text,
            "\
admin:
  ip: 0.0.0.0
namers:
# - kind: io.l5d.marathon   # not here
#   host: localhost

#   port: 8080
- kind: io.l5d.fs
  rootDir: disco
routers:
# - protocol: h2
#   label: grpc
#   servers:
#   - port: 4240
- protocol: http
  # announcers:
  # - kind: io.l5d.serversets
  #   zkAddrs: []
  # frobnicate: {a: 1}
  servers:
  - # frob: 1
    port: 4140
"
        );
        let keys: Vec<&str> = converted
            .taken_out
            .all
            .iter()
            .map(|one| one.key.as_str())
            .collect();
        assert!(keys.contains(&"namers[0].kind"), "{keys:?}");
        assert_eq!(converted.taken_out.errors(), keys.len());
    }

    #[test]
    fn a_valid_file_stays_as_it_is() {
        let file = "routers:\n- protocol: http\n  servers:\n  - port: 4140\n";
        let converted = converted(file);
        assert_eq!(
            (converted.text.as_str(), converted.taken_out.all.len()),
            (file, 0)
        );
        assert_eq!(converted.left.errors(), 0);
    }

    #[test]
    fn what_cannot_be_taken_out_by_lines_is_left_to_people() {
        for file in [
            "routers:\n- {protocol: http, frob: 1, servers: [{port: 4140}]}\n",
            "routers:\n- protocol: http\n  servers:\n  - port: many\n",
            "routers: [",
            "",
        ] {
            let converted = converted(file);
            assert!(converted.left.errors() > 0, "{file}");
            assert_eq!(converted.text.trim_end(), file.trim_end());
        }
    }
}
