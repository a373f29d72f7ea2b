//! A scrape on its way out, piece by piece, in the coding that the client wants.

use std::fmt;
use std::io::{self, Write as _};
use std::rc::Rc;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::turns::Turns;
use crate::export::Exposition;

/// About what an encoder takes beside its output: the window and the hash tables of deflate.
const ENCODER_BYTES: usize = 512 << 10;

/// What an answer's pieces are made of.
pub(super) struct Pieces {
    scrape: Exposition,
    turns: Rc<Turns>,
    /// There until the last piece of the scrape, with which it ends.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Pieces {
    /// The scrape as it is, or as a gzip file. The fastest level: metrics text shrinks tenfold with any, and a scrape
    /// should be cheap.
    pub(super) fn new(scrape: Exposition, gzip: bool, turns: Rc<Turns>) -> Self {
        Self { scrape, turns, encoder: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())) }
    }

    /// The next piece, never empty; `None` when there is no more.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.turns.pause();
        let Self { scrape, turns, encoder } = self;
        let next = |scrape: &mut Exposition| scrape.next_piece(|| turns.pause());
        let Some(encoder) = encoder else { return Ok(next(scrape)) };
        // The encoder keeps some back, so that not every piece makes it say something.
        while let Some(piece) = next(scrape) {
            encoder.write_all(&piece)?;
            turns.pause();
            if !scrape.is_over() && !encoder.get_ref().is_empty() {
                return Ok(Some(std::mem::take(encoder.get_mut())));
            }
        }
        self.encoder.take().map(GzEncoder::finish).transpose()
    }

    /// Whether there are no more pieces.
    pub(super) fn is_over(&self) -> bool {
        self.scrape.is_over()
    }

    /// The memory that it takes until it is over, beside the pieces.
    pub(super) fn held_bytes(&self) -> usize {
        self.scrape.held_bytes() + self.encoder.as_ref().map_or(0, |_| ENCODER_BYTES)
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}
