//! The witness: it stores acknowledgements on another machine, and answers which ones.
//!
//! A connection starts with a byte. After `w`, acknowledgements follow. After `c`, the witness
//! answers the highest one of each thread and life.
//!
//! The file starts with [`HEAD`], then acknowledgements follow. A witness that was killed may leave
//! a partial one at the end. The next start truncates it, so that later ones stay readable.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::record::{ACK, Acks, read_ack};
use crate::error::Error;
use crate::output::is_name_of_a_log;

pub(super) const TO_WRITE: u8 = b'w';
const TO_CHECK: u8 = b'c';
const LOOK: Duration = Duration::from_millis(250);

const HEAD: [u8; ACK] = *b"loadgen acknowledgements";

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}

pub(super) fn connect(address: &str) -> Result<TcpStream, Error> {
    let usage = || Error::Usage(format!("--witness {address:?} is not HOST:PORT"));
    let address = address.to_socket_addrs().map_err(|_| usage())?.next().ok_or_else(usage)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(10))
        .map_err(failed("reach the witness"))
}

/// Asks the witness for its acknowledgements.
///
/// # Errors
///
/// Those of the network.
pub(super) fn ask(address: &str) -> Result<Acks, Error> {
    let wrong = failed("ask the witness");
    let mut stream = connect(address)?;
    stream.write_all(&[TO_CHECK]).map_err(&wrong)?;
    let (mut input, mut acks) = (BufReader::new(stream), Acks::default());
    while let Some(ack) = read_ack(&mut input).map_err(&wrong)? {
        acks.add(ack);
    }
    Ok(acks)
}

/// Listens and stores acknowledgements in a file until the process is killed. Calls `ready` with
/// the address, and `heard` regularly with the total count.
///
/// # Errors
///
/// If the address or the file cannot be used.
pub fn serve(
    listen: &str,
    file: &Path,
    ready: impl FnOnce(String),
    heard: impl Fn(u64) + Send + 'static,
) -> Result<(), Error> {
    let wrong = |e| Error::Output { option: "--acks", path: file.into(), source: e };
    let (kept, acks) = open(file).map_err(wrong)?;
    let listener = TcpListener::bind(listen).map_err(failed("listen; give another --listen"))?;
    let address = listener.local_addr().map_err(failed("listen"))?;
    ready(address.to_string());
    let state = Arc::new((Mutex::new(acks), Mutex::new(kept)));
    let counted = Arc::clone(&state);
    std::thread::spawn(move || {
        loop {
            heard(counted.0.lock().unwrap_or_else(PoisonError::into_inner).count());
            std::thread::sleep(LOOK);
        }
    });
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // For example out of descriptors: other connections end, and accepting resumes.
            std::thread::sleep(LOOK);
            continue;
        };
        let state = Arc::clone(&state);
        // A failed connection is a writer that died, which the test expects.
        std::thread::spawn(move || hear(stream, &state));
    }
    Ok(())
}

/// Opens the file at its end, and returns its content.
fn open(path: &Path) -> io::Result<(File, Acks)> {
    if is_name_of_a_log(path) {
        return Err(io::Error::other("a log gives its own files such names"));
    }
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let mut acks = Acks::default();
    if file.metadata()?.len() == 0 {
        file.write_all(&HEAD)?;
        return Ok((file, acks));
    }
    let mut head = [0; ACK];
    let is_ours = file.read_exact(&mut head).is_ok() && head == HEAD;
    if !is_ours {
        let text = "it is there, and holds no acknowledgements of a witness";
        return Err(io::Error::other(text));
    }
    let (mut input, mut whole) = (BufReader::new(&file), ACK as u64);
    while let Some(ack) = read_ack(&mut input)? {
        acks.add(ack);
        whole += ACK as u64;
    }
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    Ok((file, acks))
}

fn hear(stream: TcpStream, (acks, file): &(Mutex<Acks>, Mutex<File>)) -> io::Result<()> {
    let lock = |acks: &Mutex<Acks>| acks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut input = BufReader::new(stream);
    let mut first = [0];
    input.read_exact(&mut first)?;
    match first[0] {
        TO_WRITE => {
            while let Some(ack) = read_ack(&mut input)? {
                acks.lock().unwrap_or_else(PoisonError::into_inner).add(ack);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(&ack.ack())?;
            }
        }
        TO_CHECK => {
            let mut stream = input.into_inner();
            for ack in lock(acks).all() {
                stream.write_all(&ack.ack())?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::Name;
    use super::*;

    #[test]
    fn file_with_a_partial_acknowledgement_is_continued() {
        let path = std::env::temp_dir().join(format!("loadgen-acks-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let ack = |number| Name { life: 1, thread: 0, number }.ack();
        let (mut file, acks) = open(&path).unwrap();
        assert_eq!(acks.count(), 0);
        file.write_all(&ack(0)).unwrap();
        file.write_all(&ack(1)[..7]).unwrap();
        let (mut file, acks) = open(&path).unwrap();
        assert_eq!(acks.count(), 1);
        file.write_all(&ack(4)).unwrap();
        assert_eq!(open(&path).unwrap().1.count(), 5);
        std::fs::write(&path, "somebody else's").unwrap();
        assert!(open(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else's");
        std::fs::remove_file(&path).unwrap();
    }
}
