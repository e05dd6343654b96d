//! What a text may ask for. Finagle has no such limits and dies of the stack or the heap instead.

/// The longest text that is read, in bytes of UTF-8: about 100,000 dentries.
pub const MAX_INPUT_BYTES: usize = 8 * 1024 * 1024;

/// How deep parentheses may be nested in a name tree.
pub const MAX_NESTING: usize = 256;

/// How many segments a path or prefix may have when it is read.
///
/// A lookup can make longer ones (`/a => /a/b/c`); who repeats lookups bounds them by the same number.
pub const MAX_PATH_SEGMENTS: usize = 4096;
