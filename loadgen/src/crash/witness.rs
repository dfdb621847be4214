//! The witness: keeps acknowledgements on another machine, and answers what they were.
//!
//! A connection begins with a byte: `w`, and acknowledgements follow; or `c`, and the highest of each thread and life are
//! answered.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::record::{Acks, read_ack};
use crate::error::Error;

pub(super) const TO_WRITE: u8 = b'w';
const TO_CHECK: u8 = b'c';

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}

pub(super) fn connect(address: &str) -> Result<TcpStream, Error> {
    let usage = || Error::Usage(format!("--witness {address:?} is not HOST:PORT"));
    let address = address.to_socket_addrs().map_err(|_| usage())?.next().ok_or_else(usage)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(10))
        .map_err(failed("reach the witness"))
}

/// What the witness has heard.
///
/// # Errors
///
/// Those of the network.
pub fn ask(address: &str) -> Result<Acks, Error> {
    let wrong = failed("ask the witness");
    let mut stream = connect(address)?;
    stream.write_all(&[TO_CHECK]).map_err(&wrong)?;
    let (mut input, mut acks) = (BufReader::new(stream), Acks::default());
    while let Some(ack) = read_ack(&mut input).map_err(&wrong)? {
        acks.add(ack);
    }
    Ok(acks)
}

/// Listens, and keeps what it hears in a file, until it is killed. Calls `ready` with the address.
///
/// # Errors
///
/// If it cannot listen, or not use the file.
pub fn serve(listen: &str, file: &Path, ready: impl FnOnce(String)) -> Result<(), Error> {
    let opened = OpenOptions::new().create(true).append(true).read(true).open(file);
    let kept =
        opened.map_err(|e| Error::Output { option: "--acks", path: file.into(), source: e })?;
    let mut acks = Acks::default();
    let mut input = BufReader::new(&kept);
    while let Some(ack) = read_ack(&mut input).map_err(failed("read the acknowledgements"))? {
        acks.add(ack);
    }
    let listener = TcpListener::bind(listen).map_err(failed("listen; give another --listen"))?;
    let address = listener.local_addr().map_err(failed("listen"))?;
    ready(address.to_string());
    let state = Arc::new((Mutex::new(acks), Mutex::new(kept)));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let state = Arc::clone(&state);
        // One that fails is one that has died, which is what this is for.
        std::thread::spawn(move || hear(stream, &state));
    }
    Ok(())
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
