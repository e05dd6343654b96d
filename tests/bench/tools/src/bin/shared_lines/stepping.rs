//! The threads, step by step.
use iced_x86::{
    Decoder, DecoderOptions, InstructionInfoFactory, OpAccess, OpKind, Register, UsedMemory,
};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

const LINE: u64 = 64;

/// What one thread does to a cache line, and the instruction that did it first.
#[derive(Default, Clone, Copy)]
struct Use {
    reads: u64,
    writes: u64,
    reader: u64,
    writer: u64,
}

#[derive(Default)]
struct Thread {
    lines: HashMap<u64, Use>,
    instructions: u64,
    locked: u64,
}

/// What an instruction does to memory, wherever that is each time.
struct Decoded {
    memory: Vec<UsedMemory>,
    is_locked: bool,
}

pub fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<i32>());
    let mut number = || {
        args.next()
            .expect("shared_lines PID THREAD THREAD")
            .expect("a number")
    };
    let pid = number();
    let ids = [number(), number()];
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("the process's memory");
    for id in ids {
        request(libc::PTRACE_SEIZE, id, 0);
        request(libc::PTRACE_INTERRUPT, id, 0);
    }
    static ENDED: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        _ = std::io::stdin().read_to_end(&mut vec![]);
        ENDED.store(true, Ordering::Relaxed);
    });
    println!("ready");
    _ = std::io::stdout().flush();

    let mut decoded = HashMap::new();
    let mut threads = [Thread::default(), Thread::default()];
    let mut stepped = ids.len();
    while stepped > 0 {
        let mut status = 0;
        let id = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        let at = ids.iter().position(|one| *one == id);
        let at = at.expect("one of the two threads has stopped");
        assert!(libc::WIFSTOPPED(status), "thread {id} has ended");
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        request(
            libc::PTRACE_GETREGS,
            id,
            std::ptr::from_mut(&mut registers) as usize,
        );
        let is_ours = status >> 16 != 0;
        let is_step = libc::WSTOPSIG(status) == libc::SIGTRAP && !is_ours;
        // Between two steps: one that is under way would end the program with its signal.
        if is_step && ENDED.load(Ordering::Relaxed) {
            request(libc::PTRACE_DETACH, id, 0);
            stepped -= 1;
            continue;
        }
        let what = decoded
            .entry(registers.rip)
            .or_insert_with(|| decode(&memory, registers.rip));
        threads[at].take_in(what, &registers);
        let signal = match is_step || is_ours {
            true => 0,
            false => libc::WSTOPSIG(status),
        };
        request(libc::PTRACE_SINGLESTEP, id, signal as usize);
    }
    println!("{}", report(&threads));
}

fn request(what: libc::c_uint, id: i32, data: usize) {
    let done = unsafe { libc::ptrace(what, id, 0, data) };
    assert!(
        done >= 0,
        "ptrace {what} of thread {id}: {}",
        std::io::Error::last_os_error()
    );
}

fn decode(memory: &std::fs::File, at: u64) -> Decoded {
    let mut bytes = [0; 15];
    // Fewer are there only at the end of a mapping.
    let n = memory.read_at(&mut bytes, at).unwrap_or(0);
    let instruction = Decoder::with_ip(64, &bytes[..n], at, DecoderOptions::NONE).decode();
    let exchanges = instruction.mnemonic() == iced_x86::Mnemonic::Xchg
        && (0..instruction.op_count()).any(|op| instruction.op_kind(op) == OpKind::Memory);
    Decoded {
        memory: InstructionInfoFactory::new()
            .info(&instruction)
            .used_memory()
            .to_vec(),
        is_locked: instruction.has_lock_prefix() || exchanges,
    }
}

impl Thread {
    /// Notes what the instruction is about to do.
    fn take_in(&mut self, what: &Decoded, registers: &libc::user_regs_struct) {
        self.instructions += 1;
        self.locked += u64::from(what.is_locked);
        for memory in &what.memory {
            let (reads, writes) = match memory.access() {
                OpAccess::Read | OpAccess::CondRead => (1, 0),
                OpAccess::Write | OpAccess::CondWrite => (0, 1),
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => (1, 1),
                OpAccess::None | OpAccess::NoMemAccess => continue,
            };
            let Some(start) = memory.virtual_address(0, |name, _, _| value(registers, name)) else {
                continue;
            };
            let end = start + memory.memory_size().size().max(1) as u64;
            for line in start / LINE..=(end - 1) / LINE {
                let used = self.lines.entry(line).or_default();
                if reads > 0 && used.reads == 0 {
                    used.reader = registers.rip;
                }
                if writes > 0 && used.writes == 0 {
                    used.writer = registers.rip;
                }
                used.reads += reads;
                used.writes += writes;
            }
        }
    }
}

fn value(registers: &libc::user_regs_struct, name: Register) -> Option<u64> {
    Some(match name {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        // A vector's elements, as in a gather: nothing of ours.
        _ => return None,
    })
}

/// The lines that one thread writes and the other one writes or reads, with the instructions that do.
fn report(threads: &[Thread; 2]) -> String {
    let mut lines = BTreeMap::new();
    for (mine, other) in [(0, 1), (1, 0)] {
        for (line, used) in &threads[mine].lines {
            if used.writes > 0 && threads[other].lines.contains_key(line) {
                lines.insert(
                    line * LINE,
                    [threads[0].lines[line], threads[1].lines[line]],
                );
            }
        }
    }
    let one = |used: &Use| {
        format!(
            r#"{{"reads": {}, "writes": {}, "reader": {}, "writer": {}}}"#,
            used.reads, used.writes, used.reader, used.writer
        )
    };
    let lines: Vec<_> = lines
        .iter()
        .map(|(at, [a, b])| format!(r#"{{"at": {at}, "threads": [{}, {}]}}"#, one(a), one(b)))
        .collect();
    let threads: Vec<_> = threads
        .iter()
        .map(|thread| {
            format!(
                r#"{{"instructions": {}, "locked": {}, "lines": {}}}"#,
                thread.instructions,
                thread.locked,
                thread.lines.len()
            )
        })
        .collect();
    format!(
        r#"{{"threads": [{}], "lines": [{}]}}"#,
        threads.join(", "),
        lines.join(", ")
    )
}
