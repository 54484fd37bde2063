//! Asks the system to let this thread run soon rather than long.
//!
//! The thread that answers queries has microseconds of work for each, and shares its cores with workers, which have all the work
//! they can get. Linux from 6.12 on (EEVDF) lets a thread without privileges choose its time slice, from 0.1 to 100 ms; one with a
//! short slice has the earlier deadline, and is run first once there is something for it to do. Its share stays what it was.
//! Elsewhere, or where it is refused, nothing changes.

#[cfg(target_os = "linux")]
pub fn ask() {
    const SLICE_NANOSECONDS: u64 = 100_000;
    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    let size = u32::try_from(size_of::<libc::sched_attr>()).expect("it is some fifty bytes");
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes no more than `size` bytes, and the structure has as many.
    let read = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            THIS_THREAD,
            &raw mut attributes,
            size,
            NO_FLAGS,
        )
    };
    // Somebody who runs us under another policy has thought about it.
    if read != 0 || i32::try_from(attributes.sched_policy) != Ok(libc::SCHED_OTHER) {
        return;
    }
    attributes.sched_runtime = SLICE_NANOSECONDS;
    // SAFETY: the kernel reads `attributes.size` bytes at most, and the structure has as many.
    let set = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            THIS_THREAD,
            &raw const attributes,
            NO_FLAGS,
        )
    };
    if set != 0 {
        tracing::debug!(
            "the HTTP thread keeps the system's time slice: {}",
            std::io::Error::last_os_error()
        );
    }
}

#[cfg(not(target_os = "linux"))]
pub fn ask() {}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn niceness_stays() {
        std::thread::spawn(|| {
            let nice = || {
                let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux has it");
                let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
                fields.split_whitespace().nth(16).map(str::to_owned)
            };
            // Only ever upwards without privileges.
            // SAFETY: it takes no memory.
            let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) };
            assert_eq!((set, nice().as_deref()), (0, Some("7")));
            super::ask();
            assert_eq!(nice().as_deref(), Some("7"));
        })
        .join()
        .expect("the thread is sound");
    }
}
