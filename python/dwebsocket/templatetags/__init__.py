"""Tags and filters for Django's templates."""
