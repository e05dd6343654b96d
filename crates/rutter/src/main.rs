//! rutter.
fn main() {}
