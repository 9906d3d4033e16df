"""The fan-out: a region's copy of every update, what matters most first, exact whatever crashes (DESIGN, section 5)."""

from ekko.streams.fanout.region import RegionFanout
from ekko.streams.fanout.rejections import RejectedTopic
from ekko.streams.fanout.score import Scored
from ekko.streams.fanout.settings import FanoutSettings

__all__ = ["FanoutSettings", "RegionFanout", "RejectedTopic", "Scored"]
