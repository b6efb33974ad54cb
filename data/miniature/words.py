"""The words of the miniature in both languages; `fresh` words are for the test set, training never uses them."""

from dataclasses import dataclass
from random import Random
from typing import Literal

Wording = Literal["train", "fresh", "any"]
"""`any` draws from both: the English of a teacher that knows all of its words."""


@dataclass(frozen=True)
class Choices:
    """Ways to say one thing in one language."""

    common: tuple[str, ...]
    fresh: tuple[str, ...] = ()

    def sample(self, random: Random, wording: Wording) -> str:
        """A random one; with `fresh`, a fresh one in three draws of four, where there is one."""
        if self.fresh and wording != "train" and random.random() < (0.75 if wording == "fresh" else 0.3):
            return random.choice(self.fresh)
        return random.choice(self.common)


@dataclass(frozen=True)
class Noun:
    """A kind's names and its Chinese measure words."""

    en: Choices
    zh: Choices
    measures: str


def _noun(en: str, zh: str, measures: str) -> Noun:
    return Noun(_choices(en), _choices(zh), measures)


def _choices(text: str) -> Choices:
    """Ways to say a thing are parted by commas; those after a bar are fresh."""
    common, _, fresh = text.partition("|")
    return Choices(tuple(common.split(",")), tuple(fresh.split(",")) if fresh else ())


def _table(**texts: str) -> dict[str, Choices]:
    return {name: _choices(text) for name, text in texts.items()}


NOUNS = {
    "cat": _noun("cat,kitty|pussycat", "猫,猫儿|猫咪", "只"),
    "dog": _noun("dog,hound|doggy", "狗,狗儿|狗狗", "只条"),
    "rabbit": _noun("rabbit,bunny|hare", "兔子,兔儿|野兔", "只"),
    "fish": _noun("fish", "鱼,鱼儿|游鱼", "条尾"),
    "bird": _noun("bird,songbird|birdie", "鸟,鸟儿|飞鸟", "只"),
    "butterfly": _noun("butterfly", "蝴蝶|蝶儿,蝶", "只"),
    "snake": _noun("snake,serpent|viper", "蛇|蟒蛇", "条"),
    "turtle": _noun("turtle,tortoise|terrapin", "乌龟,海龟|龟", "只"),
    "mountain": _noun("mountain,peak|mount", "山,山峰|山岭", "座"),
    "tree": _noun("tree", "树,树木|林木", "棵株"),
    "flower": _noun("flower,blossom|bloom", "花,花朵|花儿,鲜花", "朵枝"),
    "moon": _noun("moon,crescent moon|crescent", "月亮,弯月|月牙,明月", "轮"),
    "sun": _noun("sun", "太阳,日头|骄阳", "轮个"),
    "star": _noun("star", "星星,星|星儿", "颗"),
    "cloud": _noun("cloud", "云,云朵|云彩", "朵片"),
    "snowflake": _noun("snowflake,snow crystal", "雪花,雪片|雪花儿", "片朵"),
    "castle": _noun("castle,fortress|citadel", "城堡,堡垒|古堡", "座"),
    "house": _noun("house,cottage|cabin", "房子,屋子|房屋", "座间栋"),
    "bridge": _noun("bridge,arch bridge|footbridge", "桥,拱桥|桥梁,石桥", "座"),
    "pagoda": _noun("pagoda,temple tower", "宝塔,塔|古塔,佛塔", "座"),
    "boat": _noun("boat,sailboat|sailing boat", "船,帆船|船只,木船", "艘条只"),
    "helicopter": _noun("helicopter,chopper|copter", "直升机|直升飞机", "架"),
    "car": _noun("car,automobile|motorcar", "汽车,轿车|车子", "辆"),
    "rocket": _noun("rocket,spaceship|rocket ship", "火箭|运载火箭", "枚支"),
    "sword": _noun("sword,blade|longsword", "剑,宝剑|长剑", "把柄"),
    "lantern": _noun("lantern,paper lantern|lamp", "灯笼,灯|花灯", "盏个"),
    "umbrella": _noun("umbrella,parasol|brolly", "伞,雨伞|阳伞", "把"),
    "hat": _noun("hat,top hat", "帽子,礼帽|高帽子", "顶"),
    "crown": _noun("crown|royal crown", "王冠,皇冠|冠冕", "顶"),
    "key": _noun("key", "钥匙|锁匙", "把"),
    "cup": _noun("cup,mug|teacup", "杯子,茶杯|水杯", "只个"),
    "apple": _noun("apple", "苹果", "个只"),
}

ENGLISH_COLOURS = _table(
    red="red,crimson|scarlet", yellow="yellow,golden|lemon-yellow", green="green,emerald|jade-green",
    blue="blue,azure|sapphire", purple="purple,violet|lilac", pink="pink,rosy|rose-pink",
    white="white,pure white|ivory", black="black,jet-black|ink-black",
)  # fmt: skip
# They go before 的 or a noun (红色的猫, 朱红色); the short one clings to the noun (红猫).
CHINESE_COLOURS = _table(
    red="红色,朱红色|鲜红色", yellow="黄色,金黄色|明黄色", green="绿色,翠绿色|碧绿色",
    blue="蓝色,天蓝色|湛蓝色", purple="紫色,紫罗兰色|淡紫色", pink="粉色,粉红色|浅粉色",
    white="白色,纯白色|洁白色", black="黑色,漆黑色|乌黑色",
)  # fmt: skip
SHORT_COLOURS = {name: choices.common[0][0] for name, choices in CHINESE_COLOURS.items()}

ENGLISH_SIZES = _table(
    small="small,little,tiny|mini", medium="medium-sized|mid-sized", large="large,big,huge|giant",
)  # fmt: skip
CHINESE_SIZES = _table(
    small="很小的,小小的,小巧的|微小的", medium="中等大小的,不大不小的|中号的",
    large="很大的,巨大的,大大的|庞大的",
)  # fmt: skip
SIZE_CHARACTERS = {"small": "小", "medium": "中", "large": "大"}
NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四"}
ENGLISH_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}

# English phrase of place, English noun, Chinese phrase of place, Chinese noun
PLACES = {name: [_choices(text) for text in texts] for name, texts in {
    "night": ("under a starry night sky,in the night sky|beneath the stars of the night",
              "starry night sky,night sky|starlit night", "星空下,夜空中|星夜里", "星空,夜空|星夜"),
    "sea": ("at sea,on the open sea,over the ocean|upon the waves of the sea", "open sea,ocean|sea waves",
              "海上,大海上,海面上|海洋上", "大海,海面|海洋"),
    "grassland": ("on a grassland,in a meadow|on the grassy plain", "grassland,meadow|grassy plain",
              "草原上,草地上|草野上", "草原,草地|草野"),
    "snow": ("on a snow field,in the snow|on the snowy ground", "snow field,snowy land|snowy ground",
              "雪地里,雪原上|雪野中", "雪地,雪原|雪野"),
    "desert": ("in the desert,among sand dunes|in a sandy desert", "desert,sand dunes|sandy desert",
              "沙漠里,大漠中|大沙漠中", "沙漠,大漠|大沙漠"),
    "forest": ("in the forest,in the woods|deep in the woodland", "forest,woods|woodland",
              "森林里,树林里|密林里", "森林,树林|密林"),
    "sunset": ("at sunset,in the evening glow|in the glow of dusk", "sunset sky,evening glow|dusk",
              "夕阳下,晚霞中|霞光里", "夕阳,晚霞|霞光"),
    "city": ("in the city,before a city skyline|among the city towers", "city skyline,city|city towers",
              "城市里,都市里|城里", "城市,都市|城区"),
}.items()}  # fmt: skip

ENGLISH_RELATIONS = _table(
    left="to the left of,on the left of,left of|on the left-hand side of",
    right="to the right of,on the right of,right of|on the right-hand side of", above="above,over|high above",
    below="below,under,beneath|underneath", on="on,on top of|atop",
)  # fmt: skip
CHINESE_RELATIONS = _table(
    left="左边,左侧,左面|左方", right="右边,右侧,右面|右方", above="上方,上空|正上方", below="下方,下面|正下方",
    on="顶上,上面|顶部",
)  # fmt: skip

QUALITIES = (
    ("highly detailed", "细节丰富"), ("4k", "4k"), ("masterpiece", "杰作"), ("flat illustration", "扁平插画"),
    ("vector art", "矢量图"), ("best quality", "最佳画质"), ("simple shapes", "造型简洁"), ("sharp focus", "画面清晰"),
)  # fmt: skip
