//! Names the platform conditions once; the drivers and `sys` choose by these names only.

use cfg_aliases::cfg_aliases;

fn main() {
    cfg_aliases! {
        linux: { any(target_os = "linux", target_os = "android") },
        apple: { target_vendor = "apple" },
        epoll: { linux },
        kqueue: {
            any(apple, target_os = "freebsd", target_os = "netbsd", target_os = "dragonfly")
        },
        io_uring: { target_os = "linux" },
        glibc: { target_env = "gnu" },
    }
}
