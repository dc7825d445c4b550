//! Names the platform conditions once; the drivers and `sys` choose by these names only.

use cfg_aliases::cfg_aliases;

fn main() {
    cfg_aliases! {
        epoll: { any(target_os = "linux", target_os = "android") },
        io_uring: { target_os = "linux" },
        glibc: { target_env = "gnu" },
    }
}
