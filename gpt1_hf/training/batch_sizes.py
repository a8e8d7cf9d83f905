"""Sizes of an update: its rows over all devices, the rows of one batch, and the batches of each device."""

from transformers import TrainingArguments

from ..errors import UsageError


SIZES = ("global_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps")


class DerivedSize(int):
    """
    A size that follows from those that were given.

    `dataclasses.replace` and `type(args)(**args.to_dict())` pass all sizes to a new object, where a derived one counts
    as not given: it follows from the sizes that the caller gives or replaces.
    """


def given_sizes(args: TrainingArguments) -> tuple[int | None, int | None, int | None]:
    """The sizes `SIZES` as given, without those that follow from them."""
    total, per_device, accumulation = (getattr(args, name) for name in SIZES)
    return _if_given(total), _if_given(per_device), _if_given(accumulation)


def _if_given(size: int | None) -> int | None:
    return None if isinstance(size, DerivedSize) else size


def rows_per_update(args: TrainingArguments) -> int:
    """Rows of a full update, over all devices and accumulated batches."""
    return args.train_batch_size * args.gradient_accumulation_steps * n_separate_batches(args)


def n_separate_batches(args: TrainingArguments) -> int:
    """Number of processes that each take a batch of their own."""
    return 1 if args.accelerator_config.split_batches else args.world_size


def derive_batch_sizes(
    total: int | None, per_device: int | None, accumulation: int | None, n_devices: int, default: int
) -> tuple[int, int, int]:
    """
    Derive the sizes of an update that are not given from those that are.

    Without `total`, but with one of the other two, the sizes mean what they mean in transformers, and `total` is their
    product.

    Args:
        total (`int` or `None`):
            Rows per update, over all devices.
        per_device (`int` or `None`):
            Rows in a batch of one device.
        accumulation (`int` or `None`):
            Batches per update of each device.
        n_devices (`int`):
            Number of devices.
        default (`int`):
            `total` if none of the three is given, and `per_device` if only `accumulation` is.

    Returns:
        `tuple[int, int, int]`: `total`, `per_device` and `accumulation`, all known.

    Raises:
        UsageError: if `total` is not a multiple of the other sizes, or differs from the product of all of them.
    """
    if total is None:
        if per_device or accumulation:
            per_device, accumulation = per_device or default, accumulation or 1
            return per_device * accumulation * n_devices, per_device, accumulation
        total = default
    smallest = (per_device or 1) * (accumulation or 1) * n_devices
    if total % smallest or (per_device and accumulation and total != smallest):
        raise UsageError(_advice(total, per_device, accumulation, n_devices))
    if per_device is None:
        return total, total // smallest, accumulation or 1
    return total, per_device, accumulation or total // smallest


def _advice(total: int, per_device: int | None, accumulation: int | None, n_devices: int) -> str:
    """Why `total` does not fit the other sizes, and the nearest sizes that do."""
    sizes = {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation}
    factors = [f"{name} {size}" for name, size in sizes.items() if size]
    if n_devices > 1:
        factors.append(f"{n_devices} devices")
    product = (per_device or 1) * (accumulation or 1) * n_devices
    if per_device and accumulation:
        return (
            f"global_batch_size {total} is not {' × '.join(factors)} = {product}: leave out one of these settings, or "
            f"use global_batch_size {product}"
        )
    below = total // product * product
    ways = [f"global_batch_size {_either(below, below + product)}"]
    if len(factors) == 1 and not per_device and not accumulation:
        ways.append(f"{_either(*_nearest_divisors(total, n_devices))} devices")
    elif total % n_devices == 0:
        size = per_device or accumulation or 1
        ways.append(f"{factors[0].split()[0]} {_either(*_nearest_divisors(total // n_devices, size))}")
    return (
        f"global_batch_size {total} is not a multiple of {' × '.join(factors)}"
        f"{f' = {product}' if len(factors) > 1 else ''}: use {', or '.join(ways)}"
    )


def _nearest_divisors(number: int, size: int) -> tuple[int, int]:
    """The divisors of a number next to a size that is none: below and, if any, above; else 0."""
    divisors = [divisor for divisor in range(1, number + 1) if number % divisor == 0]
    return max(one for one in divisors if one < size), min((one for one in divisors if one > size), default=0)


def _either(*sizes: int) -> str:
    return " or ".join(str(size) for size in sizes if size)
