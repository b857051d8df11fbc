//! Multiplies matrices of whole numbers and prints the product, a row a line.
//!
//! Without an argument they come from stdin: a line a row, an empty line between two matrices. With one, N, they are
//! made: two of N rows, the first with 1, 2, 3, … and the second with the same backwards, which is work as large as one
//! likes.
//!
//! Exit code 1: a product does not fit into 64 bits, or stdout failed. 2: no such matrices.

use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

/// Rows and columns of the matrices that it makes: 8 MB each.
const LARGEST: usize = 1000;

struct Matrix {
    columns: usize,
    /// Row by row.
    numbers: Vec<i64>,
}

/// What ended it, with its exit code.
struct Failure(u8, String);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, message)) => {
            eprintln!("matrix: {message}");
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let matrices = match args.as_slice() {
        [] => read()?,
        [size] => made(size)?,
        _ => return Err(Failure(2, "expected at most one argument".to_owned())),
    };
    let mut product: Option<Matrix> = None;
    for matrix in matrices {
        product = Some(match product {
            Some(product) => multiply(&product, &matrix)?,
            None => matrix,
        });
    }
    let product = product.ok_or_else(|| Failure(2, "there is no matrix on stdin".to_owned()))?;
    print(&product).map_err(|error| Failure(1, format!("cannot write stdout: {error}")))
}

fn read() -> Result<Vec<Matrix>, Failure> {
    let mut input = String::new();
    io::stdin()
        .read_to_string(&mut input)
        .map_err(|error| Failure(2, format!("cannot read stdin: {error}")))?;
    let mut matrices = Vec::new();
    let mut open: Option<Matrix> = None;
    for (index, line) in input.lines().enumerate() {
        let wrong = |what: String| Failure(2, format!("line {}: {what}", index + 1));
        let mut row: Vec<i64> = Vec::new();
        for word in line.split_whitespace() {
            row.push(word.parse().map_err(|_| wrong(format!("not a number of 64 bits: {word}")))?);
        }
        if row.is_empty() {
            matrices.extend(open.take());
            continue;
        }
        let matrix = open.get_or_insert_with(|| Matrix { columns: row.len(), numbers: Vec::new() });
        if row.len() != matrix.columns {
            return Err(wrong(format!("{} numbers, and {} in the row before", row.len(), matrix.columns)));
        }
        matrix.numbers.extend(row);
    }
    matrices.extend(open);
    Ok(matrices)
}

fn made(size: &str) -> Result<Vec<Matrix>, Failure> {
    let size = size.parse::<usize>().ok().filter(|size| (1..=LARGEST).contains(size));
    let columns = size.ok_or_else(|| Failure(2, format!("expected a size from 1 to {LARGEST}")))?;
    let numbers: Vec<i64> = (1..).take(columns * columns).collect();
    let backwards = numbers.iter().rev().copied().collect();
    Ok(vec![Matrix { columns, numbers }, Matrix { columns, numbers: backwards }])
}

fn multiply(left: &Matrix, right: &Matrix) -> Result<Matrix, Failure> {
    let rows = right.numbers.len() / right.columns;
    if left.columns != rows {
        return Err(Failure(2, format!("{} columns, and {rows} rows in the next matrix", left.columns)));
    }
    let too_large = || Failure(1, "a number of the product does not fit into 64 bits".to_owned());
    let mut numbers = Vec::with_capacity(left.numbers.len() / left.columns * right.columns);
    for row in left.numbers.chunks(left.columns) {
        let mut sums = vec![0_i64; right.columns];
        for (factor, other) in row.iter().zip(right.numbers.chunks(right.columns)) {
            for (sum, number) in sums.iter_mut().zip(other) {
                let product = factor.checked_mul(*number);
                *sum = product.and_then(|product| sum.checked_add(product)).ok_or_else(too_large)?;
            }
        }
        numbers.extend(sums);
    }
    Ok(Matrix { columns: right.columns, numbers })
}

fn print(matrix: &Matrix) -> io::Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    for row in matrix.numbers.chunks(matrix.columns) {
        let words: Vec<String> = row.iter().map(i64::to_string).collect();
        writeln!(output, "{}", words.join(" "))?;
    }
    output.flush()
}
