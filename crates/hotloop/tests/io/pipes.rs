//! Pipes and terminals.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use hotloop::asyncio::Error;
use nix::pty::openpty;

use crate::{Outcome, noting, on_each, pattern, turn, until};

#[test]
fn a_pipe_is_read_to_its_end() -> Outcome {
    on_each(|event_loop| async move {
        let (reader, mut writer) = std::io::pipe()?;
        let (transport, heard) = event_loop.connect_read_pipe(noting, reader).await?;
        assert!(heard.made.get());
        writer.write_all(b"hello")?;
        until(&event_loop, || *heard.received.borrow() == b"hello").await?;
        assert!(
            matches!(transport.write(b"x"), Err(Error::Io(error)) if error.kind() == ErrorKind::Unsupported)
        );
        let refused = transport.writelines([b"x".to_vec()]);
        assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == ErrorKind::Unsupported));
        assert!(!transport.can_write_eof());
        transport.pause_reading();
        writer.write_all(b"more")?;
        turn(&event_loop).await?;
        turn(&event_loop).await?;
        assert_eq!(*heard.received.borrow(), b"hello");
        transport.resume_reading();
        until(&event_loop, || *heard.received.borrow() == b"hellomore").await?;
        drop(writer);
        until(&event_loop, || heard.is_lost()).await?;
        assert!(heard.ended.get());
        assert_eq!(*heard.lost.borrow(), Some(None));
        Ok(())
    })
}

#[test]
fn a_pipe_is_written_to_beyond_what_fits() -> Outcome {
    const SIZE: usize = 1 << 20;
    on_each(|event_loop| async move {
        let (mut reader, writer) = std::io::pipe()?;
        let (transport, told) = event_loop.connect_write_pipe(noting, writer).await?;
        transport.write(&pattern(SIZE))?;
        assert!(told.paused.get());
        let read = event_loop.run_in_executor(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).map(|_| received)
        })?;
        until(&event_loop, || !told.paused.get()).await?;
        assert_eq!(transport.get_write_buffer_size(), 0);
        transport.writelines([b"".to_vec(), b"!".to_vec()])?;
        assert!(transport.can_write_eof());
        transport.write_eof();
        assert!(transport.is_closing());
        transport.write(b"dropped")?;
        transport.writelines([b"dropped".to_vec(), b"too".to_vec()])?;
        let mut expected = pattern(SIZE);
        expected.push(b'!');
        assert!(read.await?? == expected);
        until(&event_loop, || told.is_lost()).await?;
        Ok(())
    })
}

#[test]
fn a_writer_hears_that_nobody_reads() -> Outcome {
    on_each(|event_loop| async move {
        let (reader, writer) = std::io::pipe()?;
        let (_transport, told) = event_loop.connect_write_pipe(noting, writer).await?;
        drop(reader);
        until(&event_loop, || told.is_lost()).await?;
        assert_eq!(*told.lost.borrow(), Some(None));
        let (reader, writer) = std::io::pipe()?;
        let (transport, told) = event_loop.connect_write_pipe(noting, writer).await?;
        transport.write(&pattern(1 << 20))?;
        drop(reader);
        until(&event_loop, || told.is_lost()).await?;
        assert_eq!(*told.lost.borrow(), Some(Some(ErrorKind::BrokenPipe)));
        Ok(())
    })
}

#[test]
fn a_terminal_is_read_and_written() -> Outcome {
    on_each(|event_loop| async move {
        let pty = openpty(None, None)?;
        let (master, slave): (OwnedFd, OwnedFd) = (pty.master, pty.slave);
        let (reading, heard) = event_loop.connect_read_pipe(noting, slave.try_clone()?).await?;
        let (writing, told) = event_loop.connect_write_pipe(noting, slave).await?;
        let mut master = File::from(master);
        master.write_all(b"typed\n")?;
        until(&event_loop, || *heard.received.borrow() == b"typed\n").await?;
        assert!(!told.is_lost(), "what is typed is no hang-up");
        writing.write(b"shown")?;
        let shown = event_loop.run_in_executor(move || {
            let mut bytes = Vec::new();
            // The echo of what was typed comes first.
            while !bytes.ends_with(b"shown") {
                let mut chunk = [0; 64];
                let count = master.read(&mut chunk)?;
                bytes.extend_from_slice(&chunk[..count]);
            }
            std::io::Result::Ok(())
        })?;
        shown.await??;
        reading.close();
        writing.close();
        until(&event_loop, || heard.is_lost() && told.is_lost()).await?;
        Ok(())
    })
}

#[test]
fn a_file_is_no_pipe() -> Outcome {
    on_each(|event_loop| async move {
        let refused = event_loop
            .connect_read_pipe(noting, File::open("/proc/self/status")?)
            .await;
        assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidInput));
        Ok(())
    })
}
