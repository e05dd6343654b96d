//! "Did you mean": the nearest of the words that would have been right.

/// The word of `known` that `typed` was most likely meant to be; `None` when nothing is near enough to be helpful.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = typed.to_lowercase();
    let allowed = (typed.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|word| (distance(&lower, &word.to_lowercase()), word))
        .filter(|&(d, word)| {
            d <= allowed || (typed.len() >= 3 && word.to_lowercase().starts_with(&lower))
        })
        .min_by_key(|&(d, _)| d)
        .map(|(_, word)| word)
}

/// How many letters to add, drop, change or swap with their neighbour.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut cost = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before[j - 2] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = ["port", "ip", "label", "tls", "clearContext"];
        for (typed, want) in [
            ("prot", Some("port")),
            ("Port", Some("port")),
            ("clearcontext", Some("clearContext")),
            ("clear", Some("clearContext")),
            ("lable", Some("label")),
            ("frobnicate", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, known), want, "{typed}");
        }
    }

    #[test]
    fn swapped_letters_are_one_step() {
        assert_eq!(distance("wrold", "world"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
