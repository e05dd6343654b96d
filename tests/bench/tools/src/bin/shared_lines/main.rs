//! Which cache lines two threads of a process have in common: steps both through what they do, instruction by
//! instruction, and notes the memory that each reads and writes.
//!
//!     shared_lines PID THREAD THREAD
//!
//! Prints `ready` once both threads are stepped, and goes on until its input ends and both have moved again; then one
//! line of JSON. What the kernel reads and writes for them is not seen. x86-64 alone; needs the right to trace the process.
#[cfg(target_arch = "x86_64")]
mod stepping;

fn main() {
    #[cfg(target_arch = "x86_64")]
    stepping::main();
    #[cfg(not(target_arch = "x86_64"))]
    panic!("instructions of this processor are not known here, only those of x86-64");
}
