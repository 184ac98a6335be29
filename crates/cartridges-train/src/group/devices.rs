//! A group of several devices in one process, over Burn's distributed runtime (NCCL on CUDA).

use burn::tensor::distributed::{ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor};

use super::exchange::{Exchange, GroupError};
use super::star::Star;

/// A member with a device of its own among devices that Burn can add up on: tensors are added up by them,
/// everything else goes over TCP.
pub struct DeviceGroup {
    star: Star,
    /// The devices of all members, in the order of ranks.
    devices: Vec<Device>,
}

impl DeviceGroup {
    /// The group of `star`, whose members hold `devices`.
    ///
    /// # Errors
    /// If there is not a device for each, or they do not add up three numbers.
    pub fn new(star: Star, devices: Vec<Device>) -> Result<Self, GroupError> {
        if devices.len() != star.size() {
            return Err(GroupError::Device(format!(
                "{} devices for {} members",
                devices.len(),
                star.size()
            )));
        }
        let mut group = Self { star, devices };
        let own = &group.devices[group.rank()];
        let rank = (group.rank() + 1) as f32;
        let probe = Tensor::<3>::from_floats([[[rank, 1.0, -rank]]], own);
        let sums = group.sum(vec![probe], &mut [])?;
        let found = sums[0].clone().into_data().try_to_vec::<f32>();
        let all = (group.size() * (group.size() + 1) / 2) as f32;
        match found {
            Ok(found) if found == [all, group.size() as f32, -all] => Ok(group),
            found => Err(GroupError::Device(format!("a first sum is {found:?}"))),
        }
    }
}

impl Exchange for DeviceGroup {
    fn rank(&self) -> usize {
        self.star.rank()
    }

    fn size(&self) -> usize {
        self.star.size()
    }

    fn sum(
        &mut self,
        tensors: Vec<Tensor<3>>,
        numbers: &mut [f64],
    ) -> Result<Vec<Tensor<3>>, GroupError> {
        // A device would wait for ever for a member that is lost, so that all say first that they are
        // there.
        self.star.sum(Vec::new(), numbers)?;
        let add = |tensor| all_reduce(tensor, ReduceOperation::Sum, self.devices.clone()).resolve();
        let work = std::panic::AssertUnwindSafe(|| tensors.into_iter().map(add).collect());
        // Burn panics where a device or its library cannot.
        std::panic::catch_unwind(work).map_err(|_| {
            GroupError::Device(
                "these devices cannot add up among themselves (is NCCL installed?)".to_owned(),
            )
        })
    }

    fn share(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        self.star.share(bytes)
    }
}
