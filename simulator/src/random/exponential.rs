//! Exponentially distributed numbers without a logarithm for each: the ziggurat (G. Marsaglia and W. W. Tsang, "The
//! Ziggurat Method for Generating Random Variables", Journal of Statistical Software 5(8), 2000).
//!
//! The area under the density is covered by layers of equal size, from the tail at the bottom to the top. A point of a
//! random layer is mostly left of where the next layer begins, and so below the density: its abscissa is the number.
//! Only at the edge has the density to be looked at.
//!
//! The crate rand_distr does the same by the system's functions, which differ from one machine to another.

use std::sync::LazyLock;

use super::Stream;

/// Layers: as many as a byte counts.
const LAYERS: usize = 256;

/// Where the tail begins, and the size of each layer; from the paper.
const TAIL: f64 = 7.697_117_470_131_05;
const SIZE: f64 = 0.003_949_659_822_581_572;

/// The layers from the bottom up; the last edge is that of none.
static EDGES: LazyLock<[Edge; LAYERS + 1]> = LazyLock::new(edges);

/// How wide they are.
static WIDTHS: LazyLock<[u64; LAYERS + 1]> = LazyLock::new(|| EDGES.map(|edge| fixed(edge.width)));

/// Numbers are in fixed point, with this many bits after the point: they are made and used by multiplications alone,
/// which take a third of the time that conversions from and to floating point do. No number is larger than 45.
pub(super) const FRACTION_BITS: u32 = 56;

/// The right end of a layer, as wide as if it were a rectangle.
#[derive(Clone, Copy, Default)]
struct Edge {
    width: f64,
    /// The density there.
    density: f64,
}

/// One number, whose mean is one; in [fixed point](FRACTION_BITS).
#[inline]
pub(super) fn draw(random: &mut Stream) -> u64 {
    let widths = &*WIDTHS;
    loop {
        let bits = random.bits();
        // The bits of the layer are not among those of the place in it.
        let (layer, place) = (bits as u8 as usize, bits >> 8);
        let at = ((u128::from(place) * u128::from(widths[layer])) >> FRACTION_BITS) as u64;
        if at < widths[layer + 1] {
            return at;
        }
        if let Some(at) = at_the_edge(random, layer, at) {
            return at;
        }
    }
}

/// The number where a layer lies partly above the density; none where the point does.
#[cold]
fn at_the_edge(random: &mut Stream, layer: usize, at: u64) -> Option<u64> {
    if layer == 0 {
        // What has come as far as the tail goes on from there as if from zero.
        return Some(fixed(TAIL - libm::log(1.0 - random.unit())));
    }
    let (bottom, top) = (EDGES[layer].density, EDGES[layer + 1].density);
    (bottom + (top - bottom) * random.unit() < libm::exp(-floating(at))).then_some(at)
}

fn fixed(number: f64) -> u64 {
    (number * (1_u64 << FRACTION_BITS) as f64) as u64
}

/// From fixed point.
pub(super) fn floating(number: u64) -> f64 {
    number as f64 / (1_u64 << FRACTION_BITS) as f64
}

fn edges() -> [Edge; LAYERS + 1] {
    let density = |width: f64| libm::exp(-width);
    let mut edges = [Edge::default(); LAYERS + 1];
    // The lowest layer has the tail, and is as wide as if it were a rectangle of that size.
    edges[0] = Edge { width: SIZE / density(TAIL), density: 0.0 };
    edges[1] = Edge { width: TAIL, density: density(TAIL) };
    for layer in 2..LAYERS {
        let Edge { width, density } = edges[layer - 1];
        let density = density + SIZE / width;
        edges[layer] = Edge { width: -libm::log(density), density };
    }
    edges[LAYERS] = Edge { width: 0.0, density: 1.0 };
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_of_one_size_and_end_at_the_top() {
        let edges = edges();
        for pair in edges[1..].windows(2) {
            let size = pair[0].width * (pair[1].density - pair[0].density);
            assert!((size / SIZE - 1.0).abs() < 1e-6, "{size}");
        }
    }

    #[test]
    fn each_part_of_the_distribution_is_as_likely_as_it_should_be() {
        let mut random = Stream::new(7, "test", 0);
        let count = 2_000_000;
        let mut found = [0_u32; 60];
        for _ in 0..count {
            let at = (floating(draw(&mut random)) * 5.0) as usize;
            found[at.min(59)] += 1;
        }
        let more_than = |at: usize| libm::exp(-(at as f64) / 5.0);
        for (at, found) in found.into_iter().enumerate() {
            let expected =
                f64::from(count) * (more_than(at) - if at == 59 { 0.0 } else { more_than(at + 1) });
            // Five standard deviations of a Poisson count.
            let most = 5.0 * expected.sqrt() + 1.0;
            assert!((f64::from(found) - expected).abs() < most, "{at}: {found} and {expected}");
        }
    }
}
