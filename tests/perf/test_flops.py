"""The peak of a device, by which MFU is a share."""

from locvlm_jax.perf import flops


def test_the_speed_of_an_unknown_device_is_measured_once_a_process():
  assert flops.peak_flops("a CPU") == flops.peak_flops("another CPU") > 0


def test_a_known_device_has_the_peak_of_its_data_sheet():
  assert flops.peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
