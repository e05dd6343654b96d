//! The canonical form. Clients of namerd compare these strings, so they are Finagle's to the byte.

use std::fmt::{self, Display, Formatter, Write};

use crate::parse::is_showable;
use crate::{NameTree, Weighted};

/// One byte that can't be shown makes Finagle escape the whole segment.
pub(crate) fn segment(bytes: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    if bytes.iter().all(|&b| is_showable(char::from(b))) {
        return bytes.iter().try_for_each(|&b| f.write_char(char::from(b)));
    }
    bytes.iter().try_for_each(|b| write!(f, "\\x{b:02x}"))
}

/// Segments of a path or elements of a prefix, a slash before each; `/` when there are none.
pub(crate) fn path(parts: &[impl Display], f: &mut Formatter<'_>) -> fmt::Result {
    if parts.is_empty() {
        return f.write_char('/');
    }
    parts.iter().try_for_each(|part| write!(f, "/{part}"))
}

/// Where a tree stands decides whether it needs parentheses.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Nothing,
    Alt,
    Union,
}

pub(crate) fn tree<T: Display>(tree: &NameTree<T>, f: &mut Formatter<'_>) -> fmt::Result {
    node(tree, Inside::Nothing, f)
}

fn node<T: Display>(tree: &NameTree<T>, inside: Inside, f: &mut Formatter<'_>) -> fmt::Result {
    match tree {
        NameTree::Leaf(leaf) => leaf.fmt(f),
        NameTree::Fail => f.write_char('!'),
        NameTree::Empty => f.write_char('$'),
        NameTree::Neg => f.write_char('~'),
        NameTree::Alt(trees) => match trees.as_slice() {
            [] => f.write_char('~'),
            [lone] => node(lone, inside, f),
            trees => grouped(inside != Inside::Nothing, f, |f| {
                list(trees, " | ", f, |tree, f| node(tree, Inside::Alt, f))
            }),
        },
        NameTree::Union(branches) => match branches.as_slice() {
            [] => f.write_char('~'),
            [lone] => node(&lone.tree, inside, f),
            branches => grouped(inside == Inside::Union, f, |f| {
                list(branches, " & ", f, branch)
            }),
        },
    }
}

fn branch<T: Display>(branch: &Weighted<T>, f: &mut Formatter<'_>) -> fmt::Result {
    if branch.weight != Weighted::<T>::DEFAULT {
        write!(f, "{}*", two_decimals(branch.weight))?;
    }
    node(&branch.tree, Inside::Union, f)
}

fn grouped(
    needed: bool,
    f: &mut Formatter<'_>,
    content: impl FnOnce(&mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    if !needed {
        return content(f);
    }
    f.write_char('(')?;
    content(f)?;
    f.write_char(')')
}

fn list<'a, I>(
    items: &'a [I],
    separator: &str,
    f: &mut Formatter<'_>,
    one: impl Fn(&'a I, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        one(item, f)?;
    }
    Ok(())
}

/// A weight with two decimals, rounded half up on its shortest decimal form, as Java's `%.2f` does: 0.125 is 0.13
/// and 1.005 is 1.01, where Rust's own formatting rounds the exact binary value.
fn two_decimals(weight: f64) -> String {
    if weight.is_infinite() {
        return "Infinity".to_owned();
    }
    let shortest = weight.to_string();
    let (whole, fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    let hundredths: String = fraction.chars().chain("00".chars()).take(2).collect();
    let up = fraction
        .as_bytes()
        .get(2)
        .is_some_and(|&digit| digit >= b'5');
    let mut digits = format!("{whole}{hundredths}");
    if up {
        digits = plus_one(&digits);
    }
    digits.insert(digits.len() - 2, '.');
    digits
}

fn plus_one(digits: &str) -> String {
    let nines = digits.bytes().rev().take_while(|&d| d == b'9').count();
    let kept = &digits[..digits.len() - nines];
    let zeros = "0".repeat(nines);
    match kept.as_bytes().last() {
        Some(last) if last.is_ascii_digit() => {
            let raised = char::from(last + 1);
            format!("{}{raised}{zeros}", &kept[..kept.len() - 1])
        }
        _ => format!("{kept}1{zeros}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_half_up_on_their_shortest_decimal_form() {
        for (weight, want) in [
            (0.3, "0.30"),
            (0.125, "0.13"),
            (0.015, "0.02"),
            (1.005, "1.01"),
            (0.996, "1.00"),
            (99.995, "100.00"),
            (0.004, "0.00"),
            (3.0, "3.00"),
            (0.0, "0.00"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(two_decimals(weight), want);
        }
    }
}
