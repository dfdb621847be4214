//! What lies behind a group in its last block.

use crate::golden_format::decoder::Log;
use crate::support::{Temp, backends};
use ringwal::Wal;

#[test]
fn recycled_buffers_leave_no_old_bytes_in_the_padding() {
    for backend in backends() {
        let temp = Temp::new();
        let ring = 64 << 10;
        let builder = Wal::builder(temp.log()).segment_size(1 << 20).ring_capacity(ring);
        let wal = builder.backend(backend).open().unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        let most = 8000;
        // Each group is one record, so that a buffer holds long and short ones in turn.
        for n in 0..150 {
            let len = random.usize(0..=if n % 3 == 0 { most } else { 300 });
            wal.append_durable(&vec![0xff; len]).unwrap();
        }
        wal.close().unwrap();
        let log = Log::decode(&temp.log(), "wal").unwrap();
        assert_eq!(log.records.len(), 150);
        log.check_what_a_writer_promises().unwrap();
    }
}
