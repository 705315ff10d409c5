"""The first tables."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Make the table of persons."""

    initial = True
    operations = [
        migrations.CreateModel(
            name="Person",
            fields=[
                ("id", models.AutoField(auto_created=True, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=50, unique=True)),
                ("online", models.BooleanField(default=False)),
            ],
        ),
    ]
