//! Matrix products: `C = A B` and `C += A B` in `f32`.
//!
//! `B` is laid out in panels first, as wide as two registers and a block of rows high, so that the innermost loop reads it
//! straight through; `A` is read where it lies, by any strides, so that transposed matrices need no copy. A number of `C` is
//! summed in an order that depends on the inner size alone: blocks of [`BLOCK`] one after the other, each from its first
//! product to its last. So a product may be cut into rows and columns in any way, and shared by any number of threads, without a
//! bit of it changing.

use crate::train::lanes::{Lanes, Plain};
use crate::train::level::{Level, level};

/// Products that are summed in registers before they join `C`.
pub const BLOCK: usize = 256;

/// The width of a panel on this processor.
pub fn panel() -> usize {
    2 * match level() {
        Level::Plain => 4,
        Level::Avx2 => 8,
        Level::Avx512 => 16,
    }
}

/// How many numbers the panels of a matrix of `rows` x `columns` take.
///
/// # Panics
/// When that is no number of a machine word.
pub fn packed_len(rows: usize, columns: usize) -> usize {
    let wide = columns.checked_next_multiple_of(panel());
    wide.and_then(|wide| rows.checked_mul(wide)).expect("the size of a matrix in memory")
}

/// A matrix by its strides: number (i, j) lies at `i * row + j * column`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub column: usize,
}

impl<'a> View<'a> {
    /// A matrix whose rows lie one after the other, `width` numbers each.
    pub fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, column: 1 }
    }

    /// The transpose of a matrix whose rows lie one after the other, `width` numbers each.
    pub fn transposed(data: &'a [f32], width: usize) -> Self {
        Self { data, row: 1, column: width }
    }

    /// The part that begins in this row and column.
    #[must_use]
    pub fn at(self, row: usize, column: usize) -> Self {
        Self { data: &self.data[row * self.row + column * self.column..], ..self }
    }

    /// Whether a matrix of this size lies within the numbers.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || last([rows, columns], [self.row, self.column]).is_some_and(|at| at < self.data.len())
    }
}

/// Where the last number of a matrix of this size, with these strides, lies; `None` where no memory is that large.
fn last([rows, columns]: [usize; 2], [row, column]: [usize; 2]) -> Option<usize> {
    (rows - 1).checked_mul(row)?.checked_add((columns - 1).checked_mul(column)?)
}

/// Lays `rows` x `columns` numbers of `from` out in panels, as [`multiply`] wants them. A range of columns that begins at a
/// multiple of [`panel`] makes a run of panels of the whole.
///
/// # Panics
/// When `into` is not [`packed_len`] long or `from` too short.
pub fn pack(into: &mut [f32], from: View, rows: usize, columns: usize) {
    let wide = panel();
    assert_eq!(into.len(), packed_len(rows, columns));
    assert!(from.holds(rows, columns));
    if rows == 0 {
        return;
    }
    for (index, panel) in into.chunks_exact_mut(rows * wide).enumerate() {
        let first = index * wide;
        let count = wide.min(columns - first);
        if from.column == 1 {
            pack_rows(panel, from, first, count, wide);
        } else {
            pack_columns(panel, from, first, count, wide);
        }
    }
}

fn pack_rows(panel: &mut [f32], from: View, first: usize, count: usize, wide: usize) {
    for (row, line) in panel.chunks_exact_mut(wide).enumerate() {
        let start = row * from.row + first;
        line[..count].copy_from_slice(&from.data[start..start + count]);
        line[count..].fill(0.0);
    }
}

/// Rows of the source become columns: in squares, so that neither side is walked in long strides.
fn pack_columns(panel: &mut [f32], from: View, first: usize, count: usize, wide: usize) {
    const SQUARE: usize = 16;
    for (block, lines) in panel.chunks_mut(SQUARE * wide).enumerate() {
        for column in 0..count {
            let start = (first + column) * from.column + block * SQUARE * from.row;
            let numbers = from.data[start..].iter().step_by(from.row.max(1));
            for (place, number) in lines[column..].iter_mut().step_by(wide).zip(numbers) {
                *place = *number;
            }
        }
        lines.chunks_exact_mut(wide).for_each(|line| line[count..].fill(0.0));
    }
}

/// `C += A^T B` for a few columns of `A`, from `first` on as many as `C` has rows. `a` has rows of `height` numbers, `b` is laid
/// out by [`pack`], `c` has rows of `width` numbers, of which the first `columns` are meant.
///
/// The columns are copied together first: where rows lie a power of two apart, as they often do, columns fall into few of the
/// cache's sets, and every stretch of `B` would fetch them from further away again.
///
/// # Panics
/// As [`multiply`].
pub fn add_transposed(c: &mut [f32], width: usize, a: &[f32], height: usize, first: usize, b: &[f32], columns: usize) {
    let (inner, rows) = (a.len() / height, c.len().div_ceil(width));
    let mut strip = vec![0.0; inner * rows];
    for (strip, line) in strip.chunks_exact_mut(rows).zip(a.chunks_exact(height)) {
        strip.copy_from_slice(&line[first..first + rows]);
    }
    multiply(c, width, View::transposed(&strip, rows), b, Size { rows, inner, columns }, Into::Add);
}

/// What becomes of the old numbers of `C`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// They are written over.
    Set,
    /// The product is added to them.
    Add,
}

/// The sizes of a product: `C` is `rows` x `columns`, and `inner` products make one of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows of `A` and `C`.
    pub rows: usize,
    /// Columns of `A`, rows of `B`.
    pub inner: usize,
    /// Columns of `B` and `C`.
    pub columns: usize,
}

/// `C = A B` or `C += A B`: `c` has rows of `width` numbers, of which the first `columns` are meant; `b` is laid out by [`pack`].
///
/// # Panics
/// When a matrix is shorter than its size.
pub fn multiply(c: &mut [f32], width: usize, a: View, b: &[f32], size: Size, into: Into) {
    let Size { rows, inner, columns } = size;
    if rows == 0 || columns == 0 {
        return;
    }
    let within = last([rows, columns], [width, 1]).is_some_and(|at| at < c.len());
    assert!(columns <= width && within && a.holds(rows, inner));
    assert_eq!(b.len(), packed_len(inner, columns));
    let whole = Whole {
        c: c.as_mut_ptr(),
        width,
        a: a.data.as_ptr(),
        row: a.row,
        column: a.column,
        b: b.as_ptr(),
        height: inner,
        size,
    };
    if inner == 0 {
        if into == Into::Set {
            (0..rows).for_each(|row| c[row * width..row * width + columns].fill(0.0));
        }
        return;
    }
    // SAFETY: the sizes were compared above, and the level is the processor's.
    unsafe { whole.run(into == Into::Add) }
}

/// A product in pointers.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    pub c: *mut f32,
    pub width: usize,
    pub a: *const f32,
    pub row: usize,
    pub column: usize,
    pub b: *const f32,
    /// The height of `b`'s panels, of which `size.inner` rows are meant.
    pub height: usize,
    pub size: Size,
}

impl Whole {
    /// # Safety
    /// The pointers reach as far as sizes and strides say, and nobody else touches `c` meanwhile.
    pub(crate) unsafe fn run(self, add: bool) {
        #[cfg(target_arch = "x86_64")]
        {
            use crate::train::lanes::{Avx2, Avx512};
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2(whole: Whole, add: bool) {
                // SAFETY: the caller's promise.
                unsafe { whole.blocks::<Avx2, 6>(add) }
            }
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512(whole: Whole, add: bool) {
                // SAFETY: the caller's promise.
                unsafe { whole.blocks::<Avx512, 12>(add) }
            }
            match level() {
                // SAFETY: the processor has these instructions: `level` asked it.
                Level::Avx512 => return unsafe { avx512(self, add) },
                // SAFETY: the same.
                Level::Avx2 => return unsafe { avx2(self, add) },
                Level::Plain => {}
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.blocks::<Plain, 4>(add) }
    }

    #[inline(always)]
    unsafe fn blocks<L: Lanes, const ROWS: usize>(self, add: bool) {
        let Size { rows, inner, columns } = self.size;
        let wide = 2 * L::WIDTH;
        for first in (0..inner).step_by(BLOCK) {
            let count = BLOCK.min(inner - first);
            for column in (0..columns).step_by(wide) {
                for row in (0..rows).step_by(ROWS) {
                    // SAFETY: within the sizes that the caller promised.
                    unsafe {
                        let tile = Tile {
                            count,
                            a: self.a.add(row * self.row + first * self.column),
                            row: self.row,
                            column: self.column,
                            b: self.b.add(column * self.height + first * wide),
                            c: self.c.add(row * self.width + column),
                            width: self.width,
                            columns: wide.min(columns - column),
                            add: add || first > 0,
                        };
                        tile.rows::<L>(ROWS.min(rows - row));
                    }
                }
            }
        }
    }
}

/// One stretch of columns, as wide as a panel, of a few rows.
#[derive(Clone, Copy)]
struct Tile {
    count: usize,
    a: *const f32,
    row: usize,
    column: usize,
    b: *const f32,
    c: *mut f32,
    width: usize,
    columns: usize,
    add: bool,
}

impl Tile {
    #[inline(always)]
    unsafe fn rows<L: Lanes>(self, rows: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                12 => self.run::<L, 12>(),
                11 => self.run::<L, 11>(),
                10 => self.run::<L, 10>(),
                9 => self.run::<L, 9>(),
                8 => self.run::<L, 8>(),
                7 => self.run::<L, 7>(),
                6 => self.run::<L, 6>(),
                5 => self.run::<L, 5>(),
                4 => self.run::<L, 4>(),
                3 => self.run::<L, 3>(),
                2 => self.run::<L, 2>(),
                _ => self.run::<L, 1>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn run<L: Lanes, const ROWS: usize>(self) {
        // SAFETY: within the tile, as the caller promised.
        unsafe {
            let mut sums = [[L::splat(0.0); 2]; ROWS];
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.count {
                let (left, right) = (L::load(b), L::load(b.add(L::WIDTH)));
                for (row, sum) in sums.iter_mut().enumerate() {
                    let value = L::splat(*a.add(row * self.row));
                    *sum = [sum[0].add_product(value, left), sum[1].add_product(value, right)];
                }
                // After the last step both may lie beyond their matrices, where `add` must not go.
                a = a.wrapping_add(self.column);
                b = b.wrapping_add(2 * L::WIDTH);
            }
            if self.columns == 2 * L::WIDTH {
                for (row, [left, right]) in sums.into_iter().enumerate() {
                    let to = self.c.add(row * self.width);
                    if self.add {
                        L::load(to).add(left).store(to);
                        L::load(to.add(L::WIDTH)).add(right).store(to.add(L::WIDTH));
                    } else {
                        left.store(to);
                        right.store(to.add(L::WIDTH));
                    }
                }
            } else {
                self.edge(sums);
            }
        }
    }

    /// The last columns of `C`, fewer than a panel has.
    #[inline(always)]
    unsafe fn edge<L: Lanes, const ROWS: usize>(self, sums: [[L; 2]; ROWS]) {
        let mut line = [0.0_f32; 32];
        for (row, [left, right]) in sums.into_iter().enumerate() {
            // SAFETY: a panel is at most 32 wide, and only the columns that there are get written.
            unsafe {
                left.store(line.as_mut_ptr());
                right.store(line.as_mut_ptr().add(L::WIDTH));
                let to = self.c.add(row * self.width);
                for (column, value) in line[..self.columns].iter().enumerate() {
                    let to = to.add(column);
                    *to = if self.add { *to + value } else { *value };
                }
            }
        }
    }
}
