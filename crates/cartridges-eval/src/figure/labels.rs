//! Room for words: labels that touch neither each other nor what they are beside.

use super::text::width;

/// A box with sides along the axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Area {
    /// The box around a point.
    pub(super) fn around(at: [f64; 2], half_width: f64, half_height: f64) -> Self {
        Self {
            left: at[0] - half_width,
            top: at[1] - half_height,
            right: at[0] + half_width,
            bottom: at[1] + half_height,
        }
    }

    /// Whether two boxes share any of their inside.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn holds(&self, other: &Self) -> bool {
        self.left <= other.left
            && other.right <= self.right
            && self.top <= other.top
            && other.bottom <= self.bottom
    }

    /// Whether a line from one point to another passes through; the ends may lie outside.
    fn crossed(&self, from: [f64; 2], to: [f64; 2]) -> bool {
        const PARTS: usize = 24;
        (0..=PARTS).any(|i| {
            let t = i as f64 / PARTS as f64;
            let [x, y] = [0, 1].map(|d| from[d] + t * (to[d] - from[d]));
            self.left < x && x < self.right && self.top < y && y < self.bottom
        })
    }
}

/// A label with its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// The box of the text.
    pub(super) area: Area,
    /// Where a line from the point to the text ends, where they are apart.
    pub(super) leader: Option<[f64; 2]>,
}

/// Finds places for labels of points, within `bounds` and off the `taken` boxes, the nearest first;
/// those that cross none of the `lines` are preferred. `None` where there is no room.
pub(super) fn place(
    wanted: &[([f64; 2], String)],
    taken: &[Area],
    lines: &[[[f64; 2]; 2]],
    bounds: Area,
    size: f64,
) -> Vec<Option<Place>> {
    // Who comes first has the choice, and which order is best depends on the points: a few are tried.
    let by = |key: &dyn Fn(usize) -> f64| {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by(|a, b| key(*a).total_cmp(&key(*b)));
        order
    };
    let orders = [
        by(&|i| i as f64),
        by(&|i| -(i as f64)),
        by(&|i| -width(&wanted[i].1, size)),
        by(&|i| wanted[i].0[1]),
        by(&|i| -wanted[i].0[1]),
        by(&|i| -wanted[i].0[0]),
    ];
    let tries = orders.map(|order| in_order(&order, wanted, taken, lines, bounds, size));
    let best = tries.into_iter().min_by_key(|(cost, _)| *cost);
    best.map(|(_, places)| places).unwrap_or_default()
}

/// Places labels in an order; with what it costs in distance and in labels that are left out.
fn in_order(
    order: &[usize],
    wanted: &[([f64; 2], String)],
    taken: &[Area],
    lines: &[[[f64; 2]; 2]],
    bounds: Area,
    size: f64,
) -> (usize, Vec<Option<Place>>) {
    const LEFT_OUT: usize = 1000;
    let mut places: Vec<Option<Place>> = vec![None; wanted.len()];
    let mut labels: Vec<Area> = Vec::new();
    let mut leaders: Vec<[[f64; 2]; 2]> = Vec::new();
    let mut total = 0;
    for index in order {
        let (at, text) = &wanted[*index];
        let free = |place: &Place| {
            bounds.holds(&place.area)
                && !taken.iter().any(|area| area.meets(&place.area))
                && !labels.iter().any(|area| area.meets(&place.area))
                && !leaders.iter().any(|l| place.area.crossed(l[0], l[1]))
                && !place
                    .leader
                    .is_some_and(|end| labels.iter().any(|area| area.crossed(*at, end)))
        };
        let best = candidates(*at, width(text, size), size * 1.15)
            .into_iter()
            .enumerate()
            .filter(|(_, place)| free(place))
            .map(|(rank, place)| {
                let crossed = lines.iter().filter(|l| place.area.crossed(l[0], l[1]));
                // A text on a line is worse than one a few steps further off.
                (rank + 10 * crossed.count(), place)
            })
            .min_by_key(|(cost, _)| *cost);
        let Some((cost, place)) = best else {
            total += LEFT_OUT;
            continue;
        };
        total += cost;
        labels.push(place.area);
        leaders.extend(place.leader.map(|end| [*at, end]));
        places[*index] = Some(place);
    }
    (total, places)
}

/// Places around a point, the best first.
fn candidates(at: [f64; 2], width: f64, height: f64) -> Vec<Place> {
    const DISTANCES: [f64; 7] = [9.0, 16.0, 26.0, 40.0, 58.0, 80.0, 110.0];
    const SLANT: f64 = std::f64::consts::FRAC_1_SQRT_2;
    let ways = [
        [1.0, 0.0],
        [-1.0, 0.0],
        [SLANT, -SLANT],
        [SLANT, SLANT],
        [-SLANT, -SLANT],
        [-SLANT, SLANT],
        [0.0, -1.0],
        [0.0, 1.0],
    ];
    let mut places = Vec::with_capacity(DISTANCES.len() * ways.len());
    for distance in DISTANCES {
        for way in ways {
            let near = [at[0] + distance * way[0], at[1] + distance * way[1]];
            let centre_x = match way[0] {
                x if x > 0.1 => near[0] + width / 2.0,
                x if x < -0.1 => near[0] - width / 2.0,
                _ => near[0],
            };
            let centre_y = match way[1] {
                y if y.abs() > 0.9 => near[1] + y.signum() * height / 2.0,
                y => near[1] + y * height / 2.0,
            };
            places.push(Place {
                area: Area::around([centre_x, centre_y], width / 2.0, height / 2.0),
                leader: (distance > 20.0).then_some(near),
            });
        }
    }
    places
}

/// Moves heights apart until neighbours are at least `gap` apart, keeping their order and, as far as it
/// goes, within `range`: labels at the ends of lines.
pub(super) fn spread(wanted: &[f64], gap: f64, range: [f64; 2]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    // Groups of labels that touch move as one, each around the mean of what its members want.
    let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
    for index in order {
        groups.push((wanted[index], vec![index]));
        while let [.., (above, upper), (below, lower)] = groups.as_slice() {
            let room = gap * (upper.len() + lower.len()) as f64 / 2.0;
            if below - above >= room {
                break;
            }
            let members: Vec<usize> = upper.iter().chain(lower).copied().collect();
            let sum: f64 = members.iter().map(|i| wanted[*i]).sum();
            let half = gap * (members.len() - 1) as f64 / 2.0;
            let low = range[0] + half;
            let centre = (sum / members.len() as f64).clamp(low, (range[1] - half).max(low));
            groups.truncate(groups.len() - 2);
            groups.push((centre, members));
        }
    }
    let mut places = vec![0.0; wanted.len()];
    for (centre, members) in groups {
        let first = centre - gap * (members.len() - 1) as f64 / 2.0;
        for (place, index) in members.into_iter().enumerate() {
            places[index] = first + gap * place as f64;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_crowd_do_not_meet() {
        let wanted: Vec<([f64; 2], String)> = (0..14)
            .map(|i| {
                let at = [
                    200.0 + f64::from(i % 4) * 12.0,
                    150.0 + f64::from(i / 4) * 9.0,
                ];
                (at, format!("cartridge {i}"))
            })
            .collect();
        let bounds = Area {
            left: 0.0,
            top: 0.0,
            right: 500.0,
            bottom: 300.0,
        };
        let points: Vec<Area> = wanted.iter().map(|w| Area::around(w.0, 6.0, 6.0)).collect();
        let placed: Vec<Area> = place(&wanted, &points, &[], bounds, 12.0)
            .into_iter()
            .flatten()
            .map(|p| p.area)
            .collect();
        assert!(placed.len() >= 12, "{}", placed.len());
        for (i, a) in placed.iter().enumerate() {
            assert!(bounds.holds(a));
            assert!(placed[..i].iter().all(|b| !a.meets(b)));
            assert!(points.iter().all(|b| !a.meets(b)));
        }
        // Where nothing fits, nothing is forced.
        assert_eq!(place(&wanted[..1], &[bounds], &[], bounds, 12.0), [None]);
    }

    #[test]
    fn ends_of_lines_move_apart_and_keep_their_order() {
        let placed = spread(&[100.0, 101.0, 10.0, 99.0], 16.0, [0.0, 300.0]);
        assert_eq!(placed, [100.0, 116.0, 10.0, 84.0]);
        let crowded = spread(&[0.0, 0.0, 0.0], 16.0, [8.0, 300.0]);
        assert_eq!(crowded, [8.0, 24.0, 40.0]);
        assert_eq!(spread(&[], 16.0, [0.0, 1.0]), Vec::<f64>::new());
    }
}
