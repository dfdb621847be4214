//! What the std backend asks of the file, and in which order.

use std::io;
use std::sync::{Arc, Mutex};

use super::std_fs::StdBackend;
use super::{Backend, Completion, Method, Part, WriteRequest};
use crate::io::fs::hooked::{Call, HookedDir, TempPath};
use crate::io::fs::{Access, Dir, OsDir};

/// The calls that an operation came to, and its completions: part, and the result if it succeeded.
fn run(
    fail: Option<Call>,
    operate: impl FnOnce(&mut StdBackend, &[u8]),
) -> (Vec<Call>, Vec<(Part, Option<u32>)>) {
    let path = TempPath::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&calls);
    let dir = HookedDir::new(Arc::new(OsDir::open_or_create(&path).unwrap()), move |call, _| {
        list.lock().unwrap().push(call);
        if fail == Some(call) {
            Err(io::Error::from_raw_os_error(crate::sys::os_error::DEVICE_FAILED))
        } else {
            Ok(())
        }
    });
    let file = dir.open("file", Access::Create).unwrap();
    calls.lock().unwrap().clear();
    let mut backend = StdBackend::new();
    backend.attach(0, &file).unwrap();
    let bytes = crate::io::fs::AlignedBuf::new(4096);
    operate(&mut backend, &bytes);
    backend.submit().unwrap();
    backend.wait(None).unwrap();
    let done = std::iter::from_fn(|| backend.reap())
        .map(|Completion { token, part, result }| {
            assert_eq!(token, 9);
            (part, result.ok())
        })
        .collect();
    let calls = calls.lock().unwrap().clone();
    (calls, done)
}

fn write(method: Method) -> impl FnOnce(&mut StdBackend, &[u8]) {
    move |backend, bytes| {
        let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
        // SAFETY: the bytes are initialised and outlive the backend's use of them in run().
        unsafe {
            backend.write(WriteRequest {
                token: 9,
                slot: 0,
                offset: 0,
                start,
                len,
                buffer: 0,
                method,
            })
        };
    }
}

/// Whether the system has one call for a write and its sync.
fn writes_durably() -> bool {
    let path = TempPath::new();
    let dir = OsDir::open_or_create(&path).unwrap();
    let file = dir.open("file", Access::Create).unwrap();
    let bytes = crate::io::fs::AlignedBuf::new(4096);
    file.write_durable_at(&bytes, 0).is_ok()
}

#[test]
fn a_group_is_written_and_then_synced() {
    let (calls, done) = run(None, write(Method::Linked));
    assert_eq!(calls, [Call::Write, Call::Sync]);
    assert_eq!(done, [(Part::Write, Some(4096)), (Part::Sync, Some(0))]);
    // One completion, and both before it.
    let (calls, done) = run(None, write(Method::Dsync));
    // Without such a call the hook sees it refused, and then the two that replace it. Old and
    // emulated kernels lack it too.
    let refused = if writes_durably() { 0 } else { 2 };
    assert_eq!(calls.len(), refused + 2);
    assert_eq!(calls[refused..], [Call::Write, Call::Sync]);
    assert_eq!(done, [(Part::Write, Some(4096))]);
    let (calls, done) = run(None, write(Method::Plain));
    assert_eq!(calls, [Call::Write]);
    assert_eq!(done, [(Part::Write, Some(4096))]);
    let (calls, done) = run(None, |backend, _| backend.sync(9, 0));
    assert_eq!(calls, [Call::Sync]);
    assert_eq!(done, [(Part::Sync, Some(0))]);
}

#[test]
fn a_failure_is_reported_and_a_failed_write_is_not_synced() {
    let (calls, done) = run(Some(Call::Write), write(Method::Linked));
    assert_eq!(calls, [Call::Write]);
    assert_eq!(done, [(Part::Write, None), (Part::Sync, None)]);
    for failing in [Call::Write, Call::Sync] {
        let (_, done) = run(Some(failing), write(Method::Dsync));
        assert_eq!(done, [(Part::Write, None)]);
    }
    let (_, done) = run(Some(Call::Sync), write(Method::Linked));
    assert_eq!(done, [(Part::Write, Some(4096)), (Part::Sync, None)]);
    let (_, done) = run(Some(Call::Sync), |backend, _| backend.sync(9, 0));
    assert_eq!(done, [(Part::Sync, None)]);
}
