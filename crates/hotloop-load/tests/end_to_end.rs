//! The program as it is, against servers that are right, wrong or rude.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[test]
fn right_echoes_are_counted() {
    let address = serve(echo);
    let output = load(&[
        "echo",
        &address,
        "--size",
        "3000",
        "--pid",
        &std::process::id().to_string(),
    ]);
    assert!(output.status.success(), "{output:?}");
    assert!(figure(&output, "requests") > 0.0);
    assert!(figure(&output, "p50_us") > 0.0);
    assert!(figure(&output, "p99_us") >= figure(&output, "p50_us"));
    assert!(figure(&output, "server_cpu_us_per_request") >= 0.0);
    assert_eq!(figure(&output, "errors"), 0.0);
}

#[test]
fn each_exchange_may_have_a_connection_of_its_own() {
    static ACCEPTED: AtomicUsize = AtomicUsize::new(0);
    let address = serve(|stream| {
        ACCEPTED.fetch_add(1, Ordering::Relaxed);
        echo(stream);
    });
    let output = load(&["echo", &address, "--reconnect"]);
    assert!(output.status.success(), "{output:?}");
    assert!(figure(&output, "requests") > 0.0);
    assert!(ACCEPTED.load(Ordering::Relaxed) as f64 >= figure(&output, "requests"));
}

#[test]
fn it_does_not_sleep_while_it_waits_if_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let arguments = [
        "echo",
        &address,
        "--connections",
        "1",
        "--warm-up",
        "3600",
        "--busy-poll",
    ];
    let load = Command::new(env!("CARGO_BIN_EXE_hotloop-load"))
        .args(arguments)
        .spawn()
        .map(Killed)
        .expect("it was built");
    let (mut stream, _) = listener.accept().expect("it connects");
    stream
        .read_exact(&mut [0; 1024])
        .expect("it has sent its message, and waits for the answer");
    let stat = format!("/proc/{}/stat", load.0.id());
    let asleep = (0..2000)
        .map(|_| std::fs::read_to_string(&stat).expect("it runs"))
        .filter(|stat| stat.contains(") S "))
        .count();
    assert_eq!(asleep, 0);
}

#[test]
fn messages_larger_than_the_buffers_of_a_unix_socket_come_back() {
    let path = std::env::temp_dir().join(format!("hotloop-load-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a free path");
    thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .for_each(|stream| drop(thread::spawn(|| echo(stream))))
    });
    let output = load(&["echo", &format!("unix:{}", path.display()), "--size", "2000000"]);
    std::fs::remove_file(&path).expect("it was bound");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn datagrams_come_back() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = format!("udp:{}", socket.local_addr().expect("it is bound"));
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            if socket.send_to(&buffer[..count], from).is_err() {
                return;
            }
        }
    });
    let output = load(&["echo", &address, "--size", "1200"]);
    assert!(output.status.success(), "{output:?}");
    assert!(figure(&output, "requests") > 0.0);
}

#[test]
fn megabytes_of_a_download_are_counted() {
    let address = serve(|mut stream| {
        let mut wanted = [0; 8];
        // Made once, and short: an unoptimised load generator on a busy machine has to see one megabyte in time.
        let answer: Vec<u8> = (0..251).cycle().take(2_000_000).collect();
        while stream.read_exact(&mut wanted).is_ok() {
            assert_eq!(u64::from_le_bytes(wanted), 2_000_000);
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let output = load(&["download", &address, "--megabytes", "2"]);
    assert!(output.status.success(), "{output:?}");
    assert!(figure(&output, "requests") > 0.0);
}

#[test]
fn a_wrong_echo_fails_the_run() {
    let address = serve(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            buffer[count - 1] ^= 1;
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    assert_fails(&load(&["echo", &address]), "not what was sent");
}

#[test]
fn a_closed_connection_fails_the_run() {
    assert_fails(&load(&["echo", &serve(drop)]), "connection");
}

#[test]
fn right_http_answers_are_counted_and_wrong_ones_fail_the_run() {
    let address = serve(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer) {
            assert!(buffer.starts_with(b"GET /there HTTP/1.1\r\nHost: "));
            if stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                .is_err()
            {
                return;
            }
        }
    });
    let output = load(&["http", &address, "--path", "/there", "--expect", "hi"]);
    assert!(output.status.success(), "{output:?}");
    assert_fails(
        &load(&["http", &address, "--path", "/there", "--expect", "ho"]),
        "not the expected one",
    );
}

#[test]
fn no_server_is_no_run() {
    let free = TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("it is bound");
    assert_eq!(load(&["echo", &free.to_string()]).status.code(), Some(2));
}

#[test]
fn each_server_of_the_benchmarks_echoes_what_is_larger_than_its_buffers() {
    for command in [
        // All at once, and in pieces.
        [env!("CARGO_BIN_EXE_hotloop-floor"), "262144"],
        [env!("CARGO_BIN_EXE_hotloop-floor"), "65536"],
        [env!("CARGO_BIN_EXE_hotloop-crate-echo"), "selector"],
        [env!("CARGO_BIN_EXE_hotloop-crate-echo"), "proactor"],
    ] {
        let (_server, address) = start(command);
        let output = load(&["echo", &address]);
        assert!(output.status.success(), "{command:?}: {output:?}");
        assert!(figure(&output, "requests") > 0.0, "{command:?}: {output:?}");
        // So much that the server has to wait for room; each byte of it is checked.
        let output = load(&["echo", &address, "--size", "300000"]);
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}

#[test]
fn a_server_on_a_loop_that_there_is_not_ends_with_a_message() {
    let output = Command::new(env!("CARGO_BIN_EXE_hotloop-crate-echo"))
        .arg("another")
        .output()
        .expect("it was built");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no loop called another"));
}

#[test]
fn a_floor_that_is_told_what_it_does_not_know_ends_with_a_message() {
    let output = Command::new(env!("CARGO_BIN_EXE_hotloop-floor"))
        .arg("another")
        .output()
        .expect("it was built");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("another is neither a number of bytes nor udp"),
        "{told}"
    );
}

/// A child that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server that prints its port, by its program and an argument; returns its address, too.
fn start([program, argument]: [&str; 2]) -> (Killed, String) {
    let mut server = Command::new(program)
        .arg(argument)
        .stdout(Stdio::piped())
        .spawn()
        .map(Killed)
        .expect("it was built");
    let mut port = String::new();
    let output = server.0.stdout.take().expect("it is a pipe");
    BufReader::new(output)
        .read_line(&mut port)
        .expect("it prints its port");
    (server, format!("127.0.0.1:{}", port.trim()))
}

/// Runs the program for a short time.
fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hotloop-load"))
        .args(["--duration", "1", "--warm-up", "0.05", "--connections", "4"])
        .args(arguments)
        .output()
        .expect("it was built")
}

/// A server with a thread for each connection, until the test ends; returns its address.
fn serve(connection: impl Fn(TcpStream) + Copy + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || connection(stream));
        }
    });
    address
}

fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn assert_fails(output: &Output, message: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(message),
        "{output:?}"
    );
    assert!(figure(output, "errors") > 0.0);
}

/// One number of the JSON object that the program printed.
fn figure(output: &Output, name: &str) -> f64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, rest) = text
        .split_once(&format!("\"{name}\": "))
        .unwrap_or_else(|| panic!("no {name} in {output:?}"));
    let number = rest
        .split([',', '}'])
        .next()
        .expect("split gives one part at least");
    number
        .parse()
        .unwrap_or_else(|_| panic!("{name} is not a number in {output:?}"))
}
