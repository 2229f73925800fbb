"""Pipelines of random weights, so small that they run anywhere: stand-ins for image models.

Their pictures are patterns that show nothing, yet depend on prompt, seed, steps and guidance. They
are built of the same classes as the real ones: a latent diffusion model with a U-Net (Rombach et
al. 2022) and one with a transformer and flow matching (Esser et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

SIZE = 32  # pixels on a side that they are made for
SPREAD = 4.0  # factor of the usual random weights of text encoders: prompts are to matter


def _tokenizer() -> Any:
    """One token for each byte, in CLIP's spelling."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _text_encoder(kind: Any) -> Any:
    from transformers import CLIPTextConfig

    return kind(
        CLIPTextConfig(
            vocab_size=514,
            hidden_size=32,
            intermediate_size=37,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=512,
            eos_token_id=513,
            pad_token_id=513,
            initializer_range=0.02 * SPREAD,
        )
    ).eval()


def _vae(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        sample_size=SIZE,
        shift_factor=0.06,
        scaling_factor=0.5,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
    ).eval()


def stable_diffusion() -> Any:
    """Latent diffusion with a U-Net and DDIM, as Stable Diffusion 1 and 2."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=SIZE // 2,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    ).eval()
    return StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=_text_encoder(CLIPTextModel),
        tokenizer=_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_3() -> Any:
    """Flow matching with a transformer, as Stable Diffusion 3, without its third text encoder."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    transformer = SD3Transformer2DModel(
        sample_size=SIZE // 2,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
    ).eval()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4),
        text_encoder=_text_encoder(CLIPTextModelWithProjection),
        tokenizer=_tokenizer(),
        text_encoder_2=_text_encoder(CLIPTextModelWithProjection),
        tokenizer_2=_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


TINY: Mapping[str, Callable[[], Any]] = {
    "tiny:stable-diffusion": stable_diffusion,
    "tiny:stable-diffusion-3": stable_diffusion_3,
}


def tiny_pipeline(name: str) -> Any:
    """A pipeline of :data:`TINY`, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TINY[name]()
